// SPDX-License-Identifier: Apache-2.0

#include "ctl/paths.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/testing/scoped_env.h"

namespace ft {
namespace {

using testing::ScopedEnv;

TEST(PathsTest, EverythingLiesUnderTheXdgFolderOrHome) {
  const ScopedEnv models("FT_MODEL_ROOT", nullptr);
  const ScopedEnv home("HOME", "/h o");
  {
    const ScopedEnv data("XDG_DATA_HOME", "/data");
    EXPECT_EQ(ServiceDir(), "/data/ft/service");
    EXPECT_EQ(ModelRootDir(), "/data/ft/models");
  }
  // The specification: what is empty or relative counts as not given.
  for (const char* unusable : {static_cast<const char*>(nullptr), "", "data"}) {
    const ScopedEnv data("XDG_DATA_HOME", unusable);
    EXPECT_EQ(ServiceDir(), "/h o/.local/share/ft/service");
    EXPECT_EQ(AdminTokenFile(),
              "/h o/.local/share/ft/service/coordinator/tokens/admin.token");
  }
}

TEST(PathsTest, WithoutHomeTheUsersOwnIsTaken) {
  const ScopedEnv data("XDG_DATA_HOME", nullptr);
  const ScopedEnv home("HOME", nullptr);
  EXPECT_EQ(DataHome().front(), '/') << DataHome();
}

TEST(PathsTest, AModelRootOfItsOwn) {
  const ScopedEnv models("FT_MODEL_ROOT", "/models");
  EXPECT_EQ(ModelRootDir(), "/models");
  // The daemons are told it, and have another working folder.
  const ScopedEnv relative("FT_MODEL_ROOT", "models");
  EXPECT_EQ(ModelRootDir(),
            (std::filesystem::current_path() / "models").string());
}

}  // namespace
}  // namespace ft
