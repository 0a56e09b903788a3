// SPDX-License-Identifier: Apache-2.0
//
// What a process that holds secrets or serves others asks of the system when it
// starts.

#pragma once

namespace ft {

// Files are made for their owner alone; there is no core file, and no other
// process of the user reads this one's memory or environment.
void KeepPrivate();

// Raises the limit of open files, so that sockets which say nothing do not take
// the descriptors of those that do.
void TakeDescriptors();

}  // namespace ft
