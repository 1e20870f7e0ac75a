#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/files.h"
#include "base/text.h"
#include "http/server.h"
#include "storage/digest.h"
#include "storage/folder.h"

namespace th::storage {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

// RFC 1321 A.5, RFC 4648 section 10, RFC 4231 test case 2.
TEST(Digest, IsThatOfTheStandards) {
  EXPECT_EQ(to_hex(md5("abc")), "900150983cd24fb0d6963f7d28e17f72");
  EXPECT_EQ(to_base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(to_base64("fooba"), "Zm9vYmE=");
  EXPECT_EQ(to_hex(hmac_sha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  for (const char* text : {"", "f", "fo", "foo", "foob", "fooba", "foobar"}) {
    EXPECT_EQ(from_base64(to_base64(text)).value_or(""), text);
  }
  for (const char* wrong : {"", "Zg=", "Z===", "Zm9v YmFy", "Zm9v\n", "=Zm9", "Zm=v"})
    EXPECT_EQ(from_base64(wrong), std::nullopt) << wrong;
}

// The examples of learn.microsoft.com, "Authorize with Shared Key": Create Container, and Get Blob of a
// secondary.
TEST(SharedKey, SignsWhatTheServiceSigns) {
  const http::Headers headers = {{"x-ms-version", "2015-02-21"},
                                 {"x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT"}};
  EXPECT_EQ(string_to_sign("PUT", headers, 0, "myaccount", "/mycontainer",
                           {{"restype", "container"}, {"timeout", "30"}}),
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n"
            "/myaccount/mycontainer\nrestype:container\ntimeout:30");
  const std::string put = string_to_sign("PUT", {{"Content-MD5", "bWQ1"}, {"Content-Type", "text/plain"}}, 11,
                                         "desk", "/desk/c/b%20c", {});
  EXPECT_EQ(put, "PUT\n\n\n11\nbWQ1\ntext/plain\n\n\n\n\n\n\n/desk/desk/c/b%20c");
}

TEST(Place, TakesContainersAndPrefixes) {
  EXPECT_EQ(parse_place("az://models")->text(), "az://models");
  EXPECT_EQ(parse_place("az://models/a/b-1.x/")->below("c").text(), "az://models/a/b-1.x/c");
  for (const char* wrong :
       {"models/a", "az://", "az://ab", "az://Models/a", "az://a--b/c", "az://-abc", "az://abc/../d",
        "az://abc//d", "az://abc/d e", "az://abc/d?sig=x", "https://abc/d"})
    EXPECT_FALSE(parse_place(wrong)) << wrong;
}

TEST(Account, ReadsConnectionStrings) {
  const auto key = parse_connection_string(
      "DefaultEndpointsProtocol=https;AccountName=desk;AccountKey=Zm9vYmE=;EndpointSuffix=core.windows.net",
      "X");
  ASSERT_TRUE(key) << key.error().message;
  EXPECT_EQ(key->endpoint, "https://desk.blob.core.windows.net");
  EXPECT_EQ(key->key, "fooba");
  const auto sas = parse_connection_string(
      "BlobEndpoint=http://127.0.0.1:10000/desk/;SharedAccessSignature=?sv=2021&sig=a%3D", "X");
  ASSERT_TRUE(sas) << sas.error().message;
  EXPECT_EQ(sas->endpoint, "http://127.0.0.1:10000/desk");
  EXPECT_EQ(sas->sas, "sv=2021&sig=a%3D");
}

TEST(Account, RefusesWithoutTellingTheSecret) {
  for (const char* wrong : {"", "nonsense", "AccountName=desk", "AccountName=desk;AccountKey=SECRET!SECRET!",
                            "AccountName=de/sk;AccountKey=Zm9v", "AccountKey=Zm9v",
                            "BlobEndpoint=http://elsewhere.example;AccountName=desk;AccountKey=Zm9v",
                            "DefaultEndpointsProtocol=http;AccountName=desk;AccountKey=Zm9v",
                            "AccountName=desk;SharedAccessSignature=SECRET"}) {
    const auto account = parse_connection_string(wrong, "the file");
    ASSERT_FALSE(account) << wrong;
    EXPECT_THAT(account.error().message, HasSubstr("the file"));
    EXPECT_THAT(account.error().message, Not(HasSubstr("SECRET")));
  }
}

class Env : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name :
         {"AZURE_STORAGE_CONNECTION_STRING", "TH_STORAGE_FILE", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY",
          "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"})
      ::unsetenv(name);
    char name[] = "/tmp/th-storage-XXXXXX";
    folder_ = ::mkdtemp(name);
  }
  void TearDown() override {
    for (const char* name : {"AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY"}) ::unsetenv(name);
    fs::remove_all(folder_);
  }
  fs::path folder_;
};

TEST_F(Env, NamesTheAccount) {
  ::setenv("AZURE_STORAGE_ACCOUNT", "desk", 1);
  auto account = account_from_env();
  ASSERT_TRUE(account);
  EXPECT_TRUE(account->identity);
  ::setenv("AZURE_STORAGE_KEY", "Zm9v", 1);
  account = account_from_env();
  ASSERT_TRUE(account);
  EXPECT_EQ(account->key, "foo");
  EXPECT_FALSE(account->identity);
  const fs::path file = folder_ / "secret";
  std::ofstream(file) << "AccountName=other;AccountKey=Zm9v\n";
  ::setenv("TH_STORAGE_FILE", file.c_str(), 1);
  fs::permissions(file, fs::perms(0644));
  EXPECT_EQ(account_from_env().error().code, Code::kPermissionDenied);
  fs::permissions(file, fs::perms(0600));
  EXPECT_EQ(account_from_env()->name, "other");
  ::unsetenv("TH_STORAGE_FILE");
}

TEST(Answers, ListsAndFaults) {
  const auto page = read_list(
      "<?xml version=\"1.0\"?><EnumerationResults><Prefix>p</Prefix><Blobs><Blob><Name>p/a &amp; "
      "b</Name><Properties>"
      "<Content-Length>7</Content-Length></Properties></Blob><Blob><Name>p/c</Name></Blob></Blobs>"
      "<NextMarker>more</NextMarker></EnumerationResults>");
  ASSERT_TRUE(page);
  ASSERT_EQ(page->blobs.size(), 2u);
  EXPECT_EQ(page->blobs[0].name, "p/a & b");
  EXPECT_EQ(page->blobs[0].bytes, 7);
  EXPECT_EQ(page->blobs[1].bytes, 0);
  EXPECT_EQ(page->next, "more");
  for (const char* wrong : {"", "<Error><Code>x</Code></Error>", "{}", "<EnumerationResults>",
                            "<!DOCTYPE a [<!ENTITY b \"c\">]><EnumerationResults/>",
                            "<EnumerationResults><Blobs><Blob><Properties><Content-Length>-1</Content-Length>"
                            "</Properties></Blob></Blobs></EnumerationResults>"})
    EXPECT_EQ(read_list(wrong).error().code, Code::kDataLoss) << wrong;
  const auto code = [](int status, const char* name) {
    return error_of_fault(status, {name, ""}, "writing", "AZURE_STORAGE_KEY").code;
  };
  EXPECT_EQ(code(403, "AuthenticationFailed"), Code::kUnauthenticated);
  EXPECT_EQ(code(403, "AuthorizationPermissionMismatch"), Code::kPermissionDenied);
  EXPECT_EQ(code(404, "BlobNotFound"), Code::kNotFound);
  EXPECT_EQ(code(409, "BlobAlreadyExists"), Code::kAlreadyExists);
  EXPECT_EQ(code(503, "ServerBusy"), Code::kUnavailable);
  EXPECT_EQ(code(400, "Md5Mismatch"), Code::kUnavailable);
  EXPECT_EQ(code(400, "InvalidHeaderValue"), Code::kInvalidArgument);
}

TEST(Manifest, IsCheckedWhole) {
  const std::vector<FileEntry> files = {{"a.json", 2, sha256_hex("{}")}, {"b", 0, sha256_hex("")}};
  EXPECT_EQ(read_manifest(write_manifest(files)), files);
  const std::string text = write_manifest(files);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = text;
    changed.replace(changed.find(from), from.size(), to);
    return changed;
  };
  for (const std::string& wrong :
       {with("a.json", "../x"), with("a.json", "/etc/x"), with("a.json", "c"),
        with("\"bytes\":2", "\"bytes\":-2"), with("\"version\":1", "\"version\":2"),
        with("44136fa3", "44136FA3"), text.substr(0, text.size() / 2)})
    EXPECT_EQ(read_manifest(wrong).error().code, Code::kDataLoss) << wrong;
}

/// A service in memory, as small as it can be: tokens of the metadata service, and blobs that are put and
/// read with them. It is busy at first. The real thing is tests/integration/storage_test.py.
class FakeService {
 public:
  FakeService() {
    http::Router router;
    router.add("GET", "/metadata/identity/oauth2/token", [this](http::Request q, http::Responder r) {
      ++tokens_;
      const bool right =
          q.header("Metadata") == "true" && q.query["resource"] == "https://storage.azure.com/";
      r.send(Json{{"access_token", right ? "a-token-of-this-machine" : ""}, {"expires_in", "3600"}});
    });
    router.add("POST", "/contoso/oauth2/v2.0/token", [this](http::Request q, http::Responder r) {
      ++tokens_;
      const bool right = q.body ==
                         "grant_type=client_credentials&client_id=me&client_secret=my%20secret%20words&scope="
                         "https%3A%2F%2Fstorage.azure.com%2F.default";
      if (!right) return r.send(Json{{"error", "invalid_client"}}, 401);
      r.send(Json{{"access_token", "a-token-of-this-machine"}, {"expires_in", 3599}});
    });
    router.add("PUT", "/c/{name...}", [this](http::Request q, http::Responder r) { put(q, r); });
    router.add("GET", "/c/{name...}", [this](http::Request q, http::Responder r) {
      std::scoped_lock lock(mutex_);
      const auto found = blobs_.find(q.params["name"]);
      r.send(found == blobs_.end() ? http::Response{404, {{"x-ms-error-code", "BlobNotFound"}}}
                                   : http::Response{200, {}, found->second});
    });
    server_ = *http::Server::start({}, std::move(router));
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(server_->port()); }
  int tokens() const { return tokens_; }
  int busy_left = 2;

 private:
  void put(const http::Request& q, const http::Responder& r) {
    std::scoped_lock lock(mutex_);
    if (q.bearer() != "a-token-of-this-machine")
      return r.send(http::Response{403, {}, "<Error><Code>AuthenticationFailed</Code></Error>"});
    if (busy_left-- > 0)
      return r.send(http::Response{503, {{"Retry-After", "0"}}, "<Error><Code>ServerBusy</Code></Error>"});
    blobs_[q.params.at("name")] = q.body;
    r.send(http::Response{201});
  }
  std::mutex mutex_;
  std::map<std::string, std::string> blobs_;
  std::atomic<int> tokens_{0};
  std::unique_ptr<http::Server> server_;
};

TEST(Blobs, SignsInByManagedIdentityAndWaitsWhileTheServiceIsBusy) {
  FakeService service;
  Account account;
  account.endpoint = account.metadata_url = service.url();
  account.identity = true;
  Blobs blobs(account, "c");
  ASSERT_TRUE(blobs.put("a/b", "text"));
  EXPECT_EQ(*blobs.get("a/b", 100), "text");
  EXPECT_EQ(blobs.get("a/c", 100).error().code, Code::kNotFound);
  EXPECT_EQ(blobs.get("a/b", 3).error().code, Code::kDataLoss);
  EXPECT_EQ(service.tokens(), 1);
}

TEST(Blobs, SignsInAsAServicePrincipal) {
  FakeService service;
  Account account;
  account.endpoint = account.login_url = service.url();
  account.identity = true;
  account.tenant = "contoso", account.client_id = "me", account.client_secret = "my secret words";
  ASSERT_TRUE(Blobs(account, "c").put("a/b", "text"));
  account.client_secret = "other secret words", account.source = "AZURE_CLIENT_SECRET";
  const auto refused = Blobs(account, "c").put("a/b", "text");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kUnauthenticated);
  EXPECT_THAT(refused.error().message, HasSubstr("AZURE_CLIENT_SECRET (status 401)"));
  EXPECT_THAT(refused.error().message, Not(HasSubstr("words")));
}

TEST(Blobs, GivesUpInTimeAndTellsNoSecret) {
  FakeService service;
  service.busy_left = 1'000'000;
  Account account;
  account.endpoint = service.url();
  account.sas = "sv=2021-12-02&sig=SECRETSECRET";
  account.source = "AZURE_STORAGE_SAS_TOKEN";
  Blobs blobs(account, "c", {.retry_ns = kSecond});
  const auto refused = blobs.put("a", "text");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kUnauthenticated);
  EXPECT_THAT(refused.error().message, HasSubstr("AZURE_STORAGE_SAS_TOKEN"));
  account.endpoint = "http://127.0.0.1:1";
  const auto gone = Blobs(account, "c", {.retry_ns = kSecond}).put("a", "text");
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, Code::kUnavailable);
  for (const auto& status : {refused, gone}) EXPECT_THAT(status.error().message, Not(HasSubstr("SECRET")));
  EXPECT_EQ(Blobs(account, "c", {.stop = [] { return true; }}).put("a", "").error().code, Code::kCancelled);
}

}  // namespace
}  // namespace th::storage
