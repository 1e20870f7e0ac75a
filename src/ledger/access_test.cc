#include <gtest/gtest.h>

#include "base/units.h"
#include "ledger/state.h"

namespace th::ledger {
namespace {

struct Log {
  State state;
  Status at(int64_t time_ns, Event event) { return apply(state, {state.seq + 1, time_ns, std::move(event)}); }
};

TEST(Access, KeysFromBeforeTheRolesKeepWhatTheyMay) {
  Log log;
  ASSERT_TRUE(log.at(1, KeyAdded{"key-1", "admin", "aa", "admin"}));
  ASSERT_TRUE(log.at(2, KeyAdded{"key-2", "ann", "bb", "user"}));
  ASSERT_TRUE(log.at(3, KeyAdded{"key-3", "bob", "cc", "user"}));
  ASSERT_TRUE(log.at(4, KeyOwned{"key-3", "lab"}));
  const Key &admin = log.state.keys.at("key-1"), &ann = log.state.keys.at("key-2"),
            &bob = log.state.keys.at("key-3");
  EXPECT_EQ(admin.role, Role::kAdmin);
  EXPECT_EQ(admin.tenant, "");
  EXPECT_FALSE(admin.has_scope(kScopeInference));
  EXPECT_EQ(ann.role, Role::kMember);
  EXPECT_EQ(ann.tenant, "default");
  EXPECT_TRUE(ann.has_scope(kScopeApi) && ann.has_scope(kScopeInference));
  EXPECT_EQ(bob.tenant, "lab");
  EXPECT_EQ(log.state.key_of_sha256.at("bb"), "key-2");
}

TEST(Access, AGrantReplacesWhatTheKindOfAKeySays) {
  Log log;
  ASSERT_TRUE(log.at(1, KeyAdded{"key-7", "ci", "aa", "user"}));
  ASSERT_TRUE(log.at(1, KeyGranted{"key-7", "viewer", "lab", "", "", {kScopeApi}, 10 * kSecond, 600}));
  const Key& key = log.state.keys.at("key-7");
  EXPECT_EQ(key.role, Role::kViewer);
  EXPECT_EQ(key.tokens_per_minute, 600);
  EXPECT_TRUE(key.valid_at(10 * kSecond - 1));
  EXPECT_FALSE(key.valid_at(10 * kSecond)) << "it ends at that moment";
  EXPECT_FALSE(key.has_scope(kScopeInference));
  EXPECT_EQ(log.state.next_key, 8);
  EXPECT_FALSE(log.at(2, KeyGranted{"key-7", "king", "lab", "", "", {}, 0, 0}));
  EXPECT_FALSE(log.at(2, KeyGranted{"key-8", "viewer", "lab", "", "", {}, 0, 0}));
}

TEST(Access, AnInvitationIsTakenOnceAndNotAfterItsTime) {
  Log log;
  ASSERT_TRUE(log.at(1, UserAdded{"user-1", "ann"}));
  InvitationMade made{"invitation-1", "aa", "lab", "member", "", "admin"};
  made.expires_ns = 10;
  ASSERT_TRUE(log.at(1, made));
  ASSERT_TRUE(log.at(2, InvitationTaken{"invitation-1", "user-1"}));
  EXPECT_FALSE(log.at(3, InvitationTaken{"invitation-1", "user-1"})) << "a second time";
  made.invitation = "invitation-2";
  ASSERT_TRUE(log.at(3, made));
  EXPECT_FALSE(log.at(10, InvitationTaken{"invitation-2", "user-1"})) << "too late";
  made.invitation = "invitation-3";
  ASSERT_TRUE(log.at(9, made));
  ASSERT_TRUE(log.at(9, InvitationRevoked{"invitation-3"}));
  EXPECT_FALSE(log.at(9, InvitationTaken{"invitation-3", "user-1"})) << "taken back";
}

TEST(Access, ARemovedUserHasNoRoleAndGetsNone) {
  Log log;
  ASSERT_TRUE(log.at(1, UserAdded{"user-1", "ann"}));
  ASSERT_TRUE(log.at(1, RoleGranted{"user-1", "lab", "admin"}));
  ASSERT_TRUE(log.at(1, RoleGranted{"user-1", "", "viewer"}));
  EXPECT_EQ(log.state.users.at("user-1").roles.at("lab"), Role::kAdmin);
  ASSERT_TRUE(log.at(2, RoleGranted{"user-1", "lab", ""}));
  EXPECT_EQ(log.state.users.at("user-1").roles.size(), 1u);
  ASSERT_TRUE(log.at(3, UserRemoved{"user-1"}));
  EXPECT_TRUE(log.state.users.at("user-1").roles.empty());
  EXPECT_FALSE(log.at(4, RoleGranted{"user-1", "lab", "member"}));
}

TEST(Access, ATenantKeepsItsNameAndPlaceWhenItsLimitsChange) {
  Log log;
  TenantCreated made{"lab", "", "tenant"};
  made.max_gpus = 8;
  ASSERT_TRUE(log.at(1, made));
  ASSERT_TRUE(log.at(2, TenantChanged{"lab", -1, 5'000'000, 3}));
  const TenantCreated& now = log.state.tenants.at("lab").created;
  EXPECT_EQ(now.max_gpus, -1) << "no limit any more";
  EXPECT_EQ(now.budget_microusd, 5'000'000);
  EXPECT_EQ(now.shares, 3);
  EXPECT_EQ(now.kind, "tenant");
  EXPECT_FALSE(log.at(3, TenantChanged{"none", 1, 1, 1}));
}

TEST(Access, AnApplicationIsReviewedOnce) {
  Log log;
  ASSERT_TRUE(log.at(1, ApplicationMade{"application-1", "ann", "ann@lab.example", "lab", "a thesis"}));
  ASSERT_TRUE(log.at(2, ApplicationReviewed{"application-1", "admin", "", "no room", false}));
  EXPECT_FALSE(log.at(3, ApplicationReviewed{"application-1", "admin", "invitation-1", "", true}));
  EXPECT_FALSE(log.at(3, TenantRemoved{"lab"})) << "there is none such";
}

}  // namespace
}  // namespace th::ledger
