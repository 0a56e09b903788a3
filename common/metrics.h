// SPDX-License-Identifier: Apache-2.0
//
// Counters, gauges and histograms of one program, over prometheus-cpp. A
// component lists all of its metrics in one struct; labels are enums.

#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace prometheus {
class Registry;
}  // namespace prometheus

namespace ft {

using MetricLabels = std::map<std::string, std::string>;

// Thread-safe. Handles live as long as the registry.
class MetricRegistry {
 public:
  MetricRegistry();
  ~MetricRegistry();

  // Adds to a counter. `name` ends in _total.
  void Count(const std::string& name, const std::string& help,
             const MetricLabels& labels = {}, double by = 1);
  void Set(const std::string& name, const std::string& help, double value,
           const MetricLabels& labels = {});
  void Observe(const std::string& name, const std::string& help, double value,
               const std::vector<double>& buckets,
               const MetricLabels& labels = {});
  // Takes the series of a gauge away, for example of a job that ended.
  void RemoveGauge(const std::string& name, const MetricLabels& labels);

  // The text exposition format.
  std::string Text() const;

 private:
  struct Families;
  std::unique_ptr<prometheus::Registry> registry_;
  std::unique_ptr<Families> families_;
};

// Seconds from 1 ms to 60 s.
const std::vector<double>& SecondsBuckets();

}  // namespace ft
