#include "access/password.h"

#include <gtest/gtest.h>

namespace th::access {
namespace {

TEST(Password, HashesAndVerifies) {
  const auto hash = hash_password("correct horse battery");
  ASSERT_TRUE(hash) << hash.error().message;
  EXPECT_TRUE(hash->starts_with("$argon2id$v=19$m=19456,t=2,p=1$")) << *hash;
  EXPECT_TRUE(verify_password("correct horse battery", *hash));
  EXPECT_FALSE(verify_password("correct horse batterz", *hash));
  EXPECT_FALSE(verify_password("", *hash));
  EXPECT_FALSE(verify_password(std::string(257, 'x'), *hash));
  EXPECT_NE(*hash_password("correct horse battery"), *hash) << "each has a salt of its own";
  EXPECT_FALSE(is_outdated(*hash));
}

// Made by `printf 'password' | argon2 somesalt -id -v 13 -t 2 -m 16 -p 1 -l 32 -e`; the same line stands in
// the test of the reference implementation, github.com/P-H-C/phc-winner-argon2, src/test.c.
TEST(Password, TakesHashesOfOtherPrograms) {
  const std::string hash =
      "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
  EXPECT_TRUE(verify_password("password", hash));
  EXPECT_FALSE(verify_password("passwore", hash));
  EXPECT_TRUE(is_outdated(hash));
}

TEST(Password, NothingFitsNobodyOrNonsense) {
  for (const char* password : {"", "password", "\0"}) EXPECT_FALSE(verify_password(password, kNobodysHash));
  EXPECT_FALSE(is_outdated(kNobodysHash)) << "it has to take as long as a real one";
  for (const char* hash : {"", "$", "$argon2id$", "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$x", "plain"})
    EXPECT_FALSE(verify_password("plain", hash)) << hash;
}

TEST(Password, RefusesWeakOnes) {
  EXPECT_TRUE(check_password("correct horse battery", "ada"));
  EXPECT_TRUE(check_password(std::string("Gr\xc3\xbc\xc3\x9f"
                                         "e aus Bern"),
                             "ada"));
  for (const std::string& weak : {std::string("short"), std::string(257, 'x'), std::string("aaaaaaaaaaaaaa"),
                                  std::string("abababababab"), std::string("my-ADA-password")}) {
    const Status checked = check_password(weak, "ada");
    ASSERT_FALSE(checked) << weak;
    EXPECT_EQ(checked.error().code, Code::kInvalidArgument);
    EXPECT_EQ(checked.error().message.find(weak), std::string::npos) << "it is never repeated";
  }
}

}  // namespace
}  // namespace th::access
