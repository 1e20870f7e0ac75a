// Passkeys and ID tokens, made here by OpenSSL as an authenticator and a provider make them.

#include <gtest/gtest.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include <nlohmann/json.hpp>

#include "access/cbor.h"
#include "access/id_token.h"
#include "access/oidc.h"
#include "access/passkey.h"
#include "access/public_key.h"
#include "base/units.h"

namespace th::access {
namespace {

// RFC 7515, appendix A.3, and RFC 8037, appendix A.4: key, JWS.
TEST(PublicKey, VerifiesWhatStandardsShow) {
  const auto bytes = [](std::string_view text) { return from_base64url(text, "test").value(); };
  const auto ec = p256_key(bytes("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"),
                           bytes("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"));
  ASSERT_TRUE(ec) << ec.error().message;
  const std::string message =
      "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt"
      "cGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
  const std::string signature =
      bytes("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q");
  EXPECT_TRUE(verify_signature(*ec, message, der_of_jose_signature(signature)));
  EXPECT_FALSE(verify_signature(*ec, message + "x", der_of_jose_signature(signature)));
  EXPECT_FALSE(verify_signature(*ec, message, signature));

  const auto ed = ed25519_key(bytes("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"));
  ASSERT_TRUE(ed) << ed.error().message;
  const std::string jws = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
  EXPECT_TRUE(verify_signature(
      *ed, jws,
      bytes("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")));
  EXPECT_FALSE(verify_signature(*ed, jws, std::string(64, 'x')));
  const auto again = public_key_from_text(to_text(*ed));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->der, ed->der);
  EXPECT_FALSE(public_key_from_text("ES512:AAAA"));
}

TEST(PublicKey, RefusesWhatIsNone) {
  EXPECT_FALSE(p256_key(std::string(32, '\1'), std::string(32, '\1'))) << "not on the curve";
  EXPECT_FALSE(p256_key("x", "y"));
  EXPECT_FALSE(ed25519_key(std::string(31, 'x')));
  EXPECT_FALSE(rsa_key(std::string(128, '\xff'), "\1")) << "1024 bits";
  EXPECT_FALSE(rsa_key(std::string(1024, '\xff'), "\3")) << "8192 bits";
  EXPECT_FALSE(rsa_key(std::string(256, '\xff'), "\1")) << "an exponent that hides nothing";
}

/// A key pair, and its public half as COSE and as JWK.
class Signer {
 public:
  explicit Signer(Algorithm algorithm) : algorithm_(algorithm) {
    key_ = algorithm == Algorithm::kEs256   ? EVP_EC_gen("P-256")
           : algorithm == Algorithm::kRs256 ? EVP_RSA_gen(2048)
                                            : EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
  }
  ~Signer() { EVP_PKEY_free(key_); }
  Signer(const Signer&) = delete;

  std::string sign(const std::string& message) const {
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    const EVP_MD* digest = algorithm_ == Algorithm::kEdDsa ? nullptr : EVP_sha256();
    EVP_DigestSignInit(context, nullptr, digest, nullptr, key_);
    std::string out(1024, '\0');
    size_t size = out.size();
    const auto* bytes = reinterpret_cast<const unsigned char*>(message.data());
    EXPECT_EQ(
        EVP_DigestSign(context, reinterpret_cast<unsigned char*>(out.data()), &size, bytes, message.size()),
        1);
    EVP_MD_CTX_free(context);
    return out.substr(0, size);
  }
  std::string number(const char* name, size_t size) const {
    BIGNUM* value = nullptr;
    EXPECT_EQ(EVP_PKEY_get_bn_param(key_, name, &value), 1);
    std::string out(size, '\0');
    BN_bn2binpad(value, reinterpret_cast<unsigned char*>(out.data()), int(size));
    BN_free(value);
    return out;
  }
  std::string x() const {
    if (algorithm_ == Algorithm::kEs256) return number(OSSL_PKEY_PARAM_EC_PUB_X, 32);
    std::string out(32, '\0');
    size_t size = 32;
    EVP_PKEY_get_raw_public_key(key_, reinterpret_cast<unsigned char*>(out.data()), &size);
    return out;
  }
  std::string y() const { return number(OSSL_PKEY_PARAM_EC_PUB_Y, 32); }
  std::string n() const { return number(OSSL_PKEY_PARAM_RSA_N, 256); }

  std::string cose() const {
    const std::string b32 = "\x58\x20";  // bytes, 32 of them
    if (algorithm_ == Algorithm::kEs256)
      return "\xa5\x01\x02\x03\x26\x20\x01\x21" + b32 + x() + "\x22" + b32 + y();
    if (algorithm_ == Algorithm::kEdDsa) return "\xa4\x01\x01\x03\x27\x20\x06\x21" + b32 + x();
    return std::string("\xa4\x01\x03\x03\x39\x01\x00\x20\x59\x01\x00", 11) + n() + "\x21\x43" +
           std::string("\x01\x00\x01", 3);
  }
  Json jwk(const std::string& id) const {
    if (algorithm_ == Algorithm::kEs256)
      return {
          {"kty", "EC"}, {"crv", "P-256"}, {"kid", id}, {"x", to_base64url(x())}, {"y", to_base64url(y())}};
    return {{"kty", "RSA"}, {"kid", id}, {"use", "sig"}, {"n", to_base64url(n())}, {"e", "AQAB"}};
  }
  /// r‖s of JOSE.
  std::string jose(const std::string& message) const {
    const std::string der = sign(message);
    if (algorithm_ != Algorithm::kEs256) return der;
    const auto* at = reinterpret_cast<const unsigned char*>(der.data());
    ECDSA_SIG* both = d2i_ECDSA_SIG(nullptr, &at, long(der.size()));
    std::string out(64, '\0');
    BN_bn2binpad(ECDSA_SIG_get0_r(both), reinterpret_cast<unsigned char*>(out.data()), 32);
    BN_bn2binpad(ECDSA_SIG_get0_s(both), reinterpret_cast<unsigned char*>(out.data()) + 32, 32);
    ECDSA_SIG_free(both);
    return out;
  }

 private:
  const Algorithm algorithm_;
  EVP_PKEY* key_;
};

const RelyingParty kDesk{"desk.example", "https://desk.example:7070"};
const std::string kChallenge = "bm90aGluZyB1cCBteSBzbGVldmU";

/// An authenticator with a browser around it; each part can be made wrong.
struct Authenticator {
  explicit Authenticator(const Signer& signer) : signer(signer) {}
  const Signer& signer;
  std::string id = std::string("credential\0one", 14), host = "desk.example", origin = kDesk.origin,
              challenge = kChallenge;
  char flags = 0x05;  // present, verified
  uint32_t count = 0;
  std::string type_of_create = "webauthn.create", type_of_get = "webauthn.get", format = "none";
  std::string extra = {};  // of the client data

  std::string data(bool with_key) const {
    std::string out = sha256_bytes(host) + char(flags | (with_key ? 0x40 : 0));
    for (int shift = 24; shift >= 0; shift -= 8) out += char(count >> shift);
    if (with_key) out += std::string(16, '\0') + '\0' + char(id.size()) + id + signer.cose();
    return out;
  }
  std::string client_data(const std::string& type) const {
    return R"({"type":")" + type + R"(","challenge":")" + challenge + R"(","origin":")" + origin + "\"" +
           extra + "}";
  }
  Json create() const {
    const std::string auth = data(true);
    const std::string object =
        "\xa3\x63"
        "fmt\x64" +
        format +
        "\x67"
        "attStmt\xa0\x68"
        "authData\x59" +
        char(auth.size() >> 8) + char(auth.size()) + auth;
    return {{"id", to_base64url(id)},
            {"type", "public-key"},
            {"response",
             {{"clientDataJSON", to_base64url(client_data(type_of_create))},
              {"attestationObject", to_base64url(object)}}}};
  }
  Json get() const {
    const std::string client = client_data(type_of_get), auth = data(false);
    return {{"id", to_base64url(id)},
            {"type", "public-key"},
            {"response",
             {{"clientDataJSON", to_base64url(client)},
              {"authenticatorData", to_base64url(auth)},
              {"signature", to_base64url(signer.sign(auth + sha256_bytes(client)))}}}};
  }
};

TEST(Passkey, IsRegisteredAndSignsIn) {
  for (const Algorithm algorithm : {Algorithm::kEs256, Algorithm::kEdDsa, Algorithm::kRs256}) {
    SCOPED_TRACE(name_of(algorithm));
    const Signer signer(algorithm);
    Authenticator mine(signer);
    const auto passkey = check_registration(kDesk, kChallenge, mine.create());
    ASSERT_TRUE(passkey) << passkey.error().message;
    EXPECT_EQ(passkey->id, to_base64url(mine.id));
    EXPECT_EQ(passkey->key.algorithm, algorithm);
    const auto signed_in = check_assertion(kDesk, kChallenge, *passkey, mine.get());
    ASSERT_TRUE(signed_in) << signed_in.error().message;
    EXPECT_EQ(*signed_in, 0u);
    const Signer other(algorithm);
    EXPECT_EQ(check_assertion(kDesk, kChallenge, *passkey, Authenticator(other).get()).error().code,
              Code::kUnauthenticated);
  }
}

TEST(Passkey, IsRefusedWhenAnythingIsOfElsewhere) {
  const Signer signer(Algorithm::kEs256);
  const auto passkey = check_registration(kDesk, kChallenge, Authenticator(signer).create());
  ASSERT_TRUE(passkey);
  const std::pair<const char*, std::function<void(Authenticator&)>> wrongs[] = {
      {"another challenge", [](Authenticator& a) { a.challenge = "eA"; }},
      {"for https://evil.example", [](Authenticator& a) { a.origin = "https://evil.example"; }},
      {"for https://desk.example,", [](Authenticator& a) { a.origin = "https://desk.example"; }},
      {"another host", [](Authenticator& a) { a.host = "evil.example"; }},
      {"nobody was there", [](Authenticator& a) { a.flags = 0x04; }},
      {"did not verify", [](Authenticator& a) { a.flags = 0x01; }},
      {"within a page", [](Authenticator& a) { a.extra = ",\"crossOrigin\":true"; }},
      {"it is for webauthn", [](Authenticator& a) { std::swap(a.type_of_create, a.type_of_get); }},
  };
  for (const auto& [told, change] : wrongs) {
    Authenticator wrong(signer);
    change(wrong);
    for (const auto& error : {check_registration(kDesk, kChallenge, wrong.create()).error(),
                              check_assertion(kDesk, kChallenge, *passkey, wrong.get()).error()}) {
      EXPECT_EQ(error.code, Code::kUnauthenticated) << told;
      EXPECT_NE(error.message.find(told), std::string::npos) << error.message;
    }
  }
}

TEST(Passkey, ACounterThatGoesBackTellsOfACopy) {
  const Signer signer(Algorithm::kEs256);
  Authenticator mine(signer);
  mine.count = 7;
  auto passkey = check_registration(kDesk, kChallenge, mine.create());
  ASSERT_TRUE(passkey);
  EXPECT_EQ(passkey->sign_count, 7u);
  for (const auto& [count, good] :
       {std::pair(8u, true), {7u, false}, {6u, false}, {0u, false}, {900u, true}}) {
    mine.count = count;
    EXPECT_EQ(check_assertion(kDesk, kChallenge, *passkey, mine.get()).has_value(), good) << count;
  }
}

TEST(Passkey, RefusesMalformedOnes) {
  const Signer signer(Algorithm::kEs256);
  const Json good = Authenticator(signer).create();
  for (const char* field : {"clientDataJSON", "attestationObject"}) {
    for (const Json& value :
         {Json(), Json(7), Json("%%"), Json(""), Json("AAAA"), Json(std::string(9000, 'A'))}) {
      Json bad = good;
      bad["response"][field] = value;
      const auto read = check_registration(kDesk, kChallenge, bad);
      ASSERT_FALSE(read) << field << value;
      EXPECT_EQ(read.error().code, Code::kInvalidArgument) << read.error().message;
    }
  }
  EXPECT_FALSE(check_registration(kDesk, kChallenge, Json::array()));
  std::string object = from_base64url(good["response"]["attestationObject"].get<std::string>(), "x").value();
  for (size_t i = 0; i < object.size(); ++i) EXPECT_FALSE(read_attestation(object.substr(0, i))) << i;
  EXPECT_TRUE(read_attestation(object));
  EXPECT_FALSE(read_attestation(object + "x"));
}

TEST(Cbor, ReadsWhatItSaysAndNoMore) {
  const auto read = [](std::string text) {
    std::string_view rest = text;
    auto value = read_cbor(rest);
    return std::pair(std::move(value), text.size() - rest.size());
  };
  EXPECT_EQ(read("\x18\xff").first->integer, 255);  // RFC 8949, appendix A
  EXPECT_EQ(read("\x39\x03\xe7").first->integer, -1000);
  EXPECT_EQ(read("\x64IETF!").first->bytes, "IETF");
  EXPECT_EQ(read("\x64IETF!").second, 5u);
  EXPECT_EQ(read(std::string("\x82\x01\xa1\x61"
                             "a\xf5"))
                .first->items[1]
                .find("a")
                ->integer,
            21);
  for (const std::string bad :
       {"", "\x18", "\x5f", "\xc0\x00", "\xf9\x3c", "\xfb", "\x81\x81\x81\x81\x81\x01",
        "\xa2\x01\x01\x01\x01", "\xa1\x41x\x01", "\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        "\x7a\xff\xff\xff\xff", "\x1b\xff\xff\xff\xff\xff\xff\xff\xff", "\x98\x41"})
    EXPECT_FALSE(read(bad).first) << testing::PrintToString(bad);
}

constexpr int64_t kNow = 1'800'000'000;
const IdTokenRules kRules{"https://login.example", "thunderhead", "a-nonce", kNow* kSecond};

Json claims() {
  return {{"iss", "https://login.example"},
          {"sub", "248289761001"},
          {"aud", "thunderhead"},
          {"exp", kNow + 300},
          {"iat", kNow - 2},
          {"nonce", "a-nonce"},
          {"preferred_username", "ada"},
          {"email", "ada@lab.example"}};
}
std::string token_of(const Signer& signer, const Json& claims, Json header) {
  const std::string text = to_base64url(dump_json(header)) + "." + to_base64url(dump_json(claims));
  return text + "." + to_base64url(signer.jose(text));
}

TEST(IdToken, TellsWhoItIs) {
  for (const Algorithm algorithm : {Algorithm::kEs256, Algorithm::kRs256}) {
    const Signer signer(algorithm), other(algorithm);
    const Json keys = {{"keys", {other.jwk("old"), {{"kty", "oct"}}, signer.jwk("new")}}};
    const Json header = {{"alg", name_of(algorithm)}, {"kid", "new"}};
    const auto identity = check_id_token(token_of(signer, claims(), header), keys, kRules);
    ASSERT_TRUE(identity) << identity.error().message;
    EXPECT_EQ(identity->subject, "248289761001");
    EXPECT_EQ(identity->login, "ada");
    EXPECT_EQ(identity->email, "ada@lab.example");
    EXPECT_FALSE(check_id_token(token_of(other, claims(), header), keys, kRules))
        << "of the old key, by name the new";
    EXPECT_TRUE(check_id_token(token_of(other, claims(), {{"alg", name_of(algorithm)}}), keys, kRules));
    EXPECT_FALSE(check_id_token(token_of(signer, claims(), header), Json::object(), kRules));
  }
}

TEST(IdToken, IsRefusedWhenAClaimIsWrong) {
  const Signer signer(Algorithm::kEs256);
  const Json keys = {{"keys", {signer.jwk("k")}}}, header = {{"alg", "ES256"}, {"kid", "k"}};
  const auto refused = [&](const char* field, const Json& value) {
    Json wrong = claims();
    if (value.is_null())
      wrong.erase(field);
    else
      wrong[field] = value;
    const auto read = check_id_token(token_of(signer, wrong, header), keys, kRules);
    EXPECT_FALSE(read) << field << " " << value;
    if (!read) {
      EXPECT_EQ(read.error().code, Code::kUnauthenticated);
    }
  };
  for (const Json& value : {Json(), Json("https://evil.example"), Json("https://login.example/"), Json(7)})
    refused("iss", value);
  for (const Json& value : {Json(), Json("other"), Json({"other"}), Json({"thunderhead", "other"})})
    refused("aud", value);
  for (const Json& value : {Json(), Json(kNow - 61), Json("soon"), Json(1e300)}) refused("exp", value);
  for (const Json& value : {Json(), Json(kNow + 61), Json(kNow - 601)}) refused("iat", value);
  refused("nbf", kNow + 61);
  for (const Json& value : {Json(), Json("b-nonce"), Json("")}) refused("nonce", value);
  for (const Json& value : {Json(), Json(""), Json(std::string(256, 'x')), Json(7)}) refused("sub", value);
  refused("azp", "other");
  Json several = claims();
  several["aud"] = {"thunderhead", "other"}, several["azp"] = "thunderhead";
  EXPECT_TRUE(check_id_token(token_of(signer, several, header), keys, kRules));
}

TEST(IdToken, IsRefusedWithoutAGoodSignature) {
  const Signer signer(Algorithm::kEs256), rsa(Algorithm::kRs256);
  const Json keys = {{"keys", {signer.jwk("k"), rsa.jwk("r")}}};
  const std::string good = token_of(signer, claims(), {{"alg", "ES256"}, {"kid", "k"}});
  ASSERT_TRUE(check_id_token(good, keys, kRules));
  const size_t last = good.rfind('.');
  const std::string unsigned_one =
      to_base64url(R"({"alg":"none"})") + good.substr(good.find('.'), last - good.find('.') + 1);
  for (const std::string& bad :
       {std::string(), std::string("..."), good.substr(0, last), good.substr(0, last + 1), good + "x",
        "x" + good, unsigned_one, good.substr(0, last) + "." + to_base64url(std::string(64, '\0')),
        std::string(40000, 'x'), token_of(signer, claims(), {{"alg", "HS256"}, {"kid", "k"}}),
        token_of(signer, claims(), {{"alg", "RS256"}, {"kid", "r"}}),
        token_of(signer, claims(), {{"alg", "ES256"}, {"crit", {"b64"}}})})
    EXPECT_FALSE(check_id_token(bad, keys, kRules)) << bad.substr(0, 80);
}

TEST(Oidc, ReadsItsFileAndTheProvider) {
  const auto options =
      read_oidc_options("issuer: https://login.example/lab\nclient_id: thunderhead\n", "oidc.yaml");
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->name, "login.example");
  for (const char* bad : {"", "issuer: http://login.example\nclient_id: x\n", "issuer: https://a\n",
                          "issuer: https://a\nclient_id: x\nscopes: email\n",
                          "issuer: https://a\nclient_id: x\nclient_secret: y\n",
                          "issuer: https://a\nclient_id: x\nredirect_url: http://b\n"})
    EXPECT_FALSE(read_oidc_options(bad, "oidc.yaml")) << bad;
  Json answer = {{"issuer", "https://login.example/lab"},
                 {"authorization_endpoint", "https://login.example/auth?x=1"},
                 {"token_endpoint", "https://login.example/token"},
                 {"jwks_uri", "https://login.example/keys"}};
  const auto provider = read_provider(*options, answer);
  ASSERT_TRUE(provider) << provider.error().message;
  // RFC 7636, appendix B.
  const OidcAttempt attempt{"s", "n", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"};
  EXPECT_EQ(authorization_url(*options, *provider, "https://desk.example/cb", attempt),
            "https://login.example/"
            "auth?x=1&response_type=code&client_id=thunderhead&redirect_uri=https%3A%2F%2Fdesk.example%2Fcb"
            "&scope=openid%20profile%20email&state=s&nonce=n&code_challenge="
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
            "&code_challenge_method=S256");
  answer["token_endpoint"] = "http://login.example/token";
  EXPECT_FALSE(read_provider(*options, answer)) << "the secret would go there in clear";
  answer["issuer"] = "https://evil.example";
  EXPECT_EQ(read_provider(*options, answer).error().code, Code::kFailedPrecondition);
}

}  // namespace
}  // namespace th::access
