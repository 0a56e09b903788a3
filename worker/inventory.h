// SPDX-License-Identifier: Apache-2.0
//
// What the machine has to offer.

#pragma once

#include "ft/v1/resources.pb.h"
#include "worker/config.h"

namespace ft {

v1::Inventory TakeInventory(const WorkerConfig& config);

// Changes with every boot of the machine.
std::string BootId();

}  // namespace ft
