// SPDX-License-Identifier: Apache-2.0

#include "common/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "absl/synchronization/mutex.h"

namespace ft {

struct MetricRegistry::Families {
  absl::Mutex mutex;
  std::map<std::string, prometheus::Family<prometheus::Counter>*> counters;
  std::map<std::string, prometheus::Family<prometheus::Gauge>*> gauges;
  std::map<std::string, prometheus::Family<prometheus::Histogram>*> histograms;
};

MetricRegistry::MetricRegistry()
    : registry_(std::make_unique<prometheus::Registry>()),
      families_(std::make_unique<Families>()) {}

MetricRegistry::~MetricRegistry() = default;

void MetricRegistry::Count(const std::string& name, const std::string& help,
                           const MetricLabels& labels, double by) {
  absl::MutexLock lock(&families_->mutex);
  auto& family = families_->counters[name];
  if (family == nullptr) {
    family =
        &prometheus::BuildCounter().Name(name).Help(help).Register(*registry_);
  }
  family->Add(labels).Increment(by);
}

void MetricRegistry::Set(const std::string& name, const std::string& help,
                         double value, const MetricLabels& labels) {
  absl::MutexLock lock(&families_->mutex);
  auto& family = families_->gauges[name];
  if (family == nullptr) {
    family =
        &prometheus::BuildGauge().Name(name).Help(help).Register(*registry_);
  }
  family->Add(labels).Set(value);
}

void MetricRegistry::Observe(const std::string& name, const std::string& help,
                             double value, const std::vector<double>& buckets,
                             const MetricLabels& labels) {
  absl::MutexLock lock(&families_->mutex);
  auto& family = families_->histograms[name];
  if (family == nullptr) {
    family = &prometheus::BuildHistogram().Name(name).Help(help).Register(
        *registry_);
  }
  family->Add(labels, prometheus::Histogram::BucketBoundaries(buckets))
      .Observe(value);
}

void MetricRegistry::RemoveGauge(const std::string& name,
                                 const MetricLabels& labels) {
  absl::MutexLock lock(&families_->mutex);
  const auto family = families_->gauges.find(name);
  if (family == families_->gauges.end() || !family->second->Has(labels)) return;
  family->second->Remove(&family->second->Add(labels));
}

std::string MetricRegistry::Text() const {
  return prometheus::TextSerializer().Serialize(registry_->Collect());
}

const std::vector<double>& SecondsBuckets() {
  static const auto* const kBuckets = new std::vector<double>{
      0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
      0.5,   1,      2.5,   5,    10,    30,   60};
  return *kBuckets;
}

}  // namespace ft
