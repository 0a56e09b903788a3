// SPDX-License-Identifier: Apache-2.0

#include "common/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ft {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(MetricsTest, ValuesAreExposedWithHelpAndLabels) {
  MetricRegistry registry;
  registry.Count("ft_x_total", "How many x.", {{"kind", "a"}});
  registry.Count("ft_x_total", "How many x.", {{"kind", "a"}}, 2);
  registry.Set("ft_y_bytes", "Size of y.", 7);
  registry.Observe("ft_z_seconds", "Time of z.", 0.2, SecondsBuckets());
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("# HELP ft_x_total How many x."));
  EXPECT_THAT(text, HasSubstr("ft_x_total{kind=\"a\"} 3"));
  EXPECT_THAT(text, HasSubstr("ft_y_bytes 7"));
  EXPECT_THAT(text, HasSubstr("ft_z_seconds_bucket{le=\"0.25\"} 1"));
}

TEST(MetricsTest, AGaugeOfAnEndedJobGoes) {
  MetricRegistry registry;
  registry.Set("ft_step", "Step.", 1, {{"job", "a"}});
  registry.Set("ft_step", "Step.", 2, {{"job", "b"}});
  registry.RemoveGauge("ft_step", {{"job", "a"}});
  EXPECT_THAT(registry.Text(), Not(HasSubstr("job=\"a\"")));
  EXPECT_THAT(registry.Text(), HasSubstr("job=\"b\""));
}

}  // namespace
}  // namespace ft
