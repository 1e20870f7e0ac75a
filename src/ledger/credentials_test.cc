#include "ledger/credentials.h"

#include <gtest/gtest.h>

#include "ledger/state.h"

namespace th::ledger {
namespace {

TEST(Credentials, ACodeForAPasswordEndsWithAnyOtherAndWithARole) {
  State state;
  int64_t time_ns = 0;
  auto at = [&](Event event) { return apply(state, {state.seq + 1, ++time_ns, std::move(event)}); };
  const auto& resets = state.credentials.resets;
  ASSERT_TRUE(at(UserAdded{"user-1", "ann"}));
  EXPECT_FALSE(at(PasswordResetMade{"user-2", "aa", "admin", 9}));
  ASSERT_TRUE(at(PasswordResetMade{"user-1", "aa", "admin", 9}));
  ASSERT_TRUE(at(PasswordResetMade{"user-1", "bb", "admin", 9}));
  ASSERT_EQ(resets.size(), 1u);
  EXPECT_EQ(resets.at("user-1").code_sha256, "bb") << "the last one holds";
  ASSERT_TRUE(at(PasswordSet{"user-1", "$argon2id$1"}));
  EXPECT_TRUE(resets.empty());
  ASSERT_TRUE(at(PasswordResetMade{"user-1", "cc", "lab-admin", 9}));
  ASSERT_TRUE(at(RoleGranted{"user-1", "", "admin"}));
  EXPECT_TRUE(resets.empty()) << "the user may more now than who made the code";
  ASSERT_TRUE(at(PasswordResetMade{"user-1", "dd", "admin", 9}));
  ASSERT_TRUE(at(UserRemoved{"user-1"}));
  EXPECT_TRUE(resets.empty());
}

TEST(Credentials, AreOfUsersWhoAreThereAndGoWithThem) {
  State state;
  const auto at = [&](int64_t time_ns, Event event) {
    return apply(state, {state.seq + 1, time_ns, std::move(event)});
  };
  EXPECT_FALSE(at(1, PasswordSet{"user-1", "$argon2id$x"})) << "nobody yet";
  ASSERT_TRUE(at(1, UserAdded{"user-1", "ann"}));
  ASSERT_TRUE(at(2, PasswordSet{"user-1", "$argon2id$x"}));
  ASSERT_TRUE(at(2, PasskeyAdded{"user-1", "AAAA", "ES256:BBBB", "desk.example", "phone", 3}));
  EXPECT_FALSE(at(3, PasskeyAdded{"user-1", "AAAA", "ES256:CCCC", "desk.example", "other", 0}))
      << "the same id";
  ASSERT_TRUE(at(5, PasskeyUsed{"AAAA", 4}));
  EXPECT_EQ(state.credentials.passkeys.at("AAAA").sign_count, 4);
  EXPECT_EQ(state.credentials.passkeys.at("AAAA").added_ns, 2);
  EXPECT_EQ(state.credentials.passkeys.at("AAAA").last_used_ns, 5);
  ASSERT_TRUE(at(6, SubjectLinked{"user-1", "https://login.example", "248"}));
  EXPECT_FALSE(at(6, SubjectLinked{"user-1", "https://login.example", "248"}));
  ASSERT_TRUE(at(7, SubjectLinked{"user-1", "https://other.example", "248"}));
  EXPECT_EQ(state.credentials.user_of.at({"https://login.example", "248"}), "user-1");
  EXPECT_FALSE(at(7, PasskeyRemoved{"BBBB"}));
  EXPECT_FALSE(at(7, PasskeyUsed{"BBBB", 1}));

  ASSERT_TRUE(at(8, UserAdded{"user-2", "bob"}));
  ASSERT_TRUE(at(8, PasswordSet{"user-2", "$argon2id$y"}));
  ASSERT_TRUE(at(9, UserRemoved{"user-1"}));
  EXPECT_EQ(state.credentials.password_of.size(), 1u);
  EXPECT_TRUE(state.credentials.passkeys.empty());
  EXPECT_TRUE(state.credentials.user_of.empty());
  ASSERT_TRUE(at(9, PasswordSet{"user-2", ""}));
  EXPECT_TRUE(state.credentials.password_of.empty());
}

}  // namespace
}  // namespace th::ledger
