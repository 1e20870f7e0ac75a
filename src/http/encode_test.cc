#include "http/encode.h"

#include <gtest/gtest.h>
#include <zlib.h>

namespace th::http {
namespace {

Response text(size_t bytes) {
  std::string body;
  while (body.size() < bytes) body += "node " + std::to_string(body.size()) + "\n";
  return Response{200, {{"Content-Type", "application/json"}}, body};
}

std::string gunzip(const std::string& packed, size_t max_bytes) {
  z_stream stream{};
  if (inflateInit2(&stream, 15 + 16) != Z_OK) return "";
  std::string out(max_bytes, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const bool whole = inflate(&stream, Z_FINISH) == Z_STREAM_END;
  out.resize(whole ? stream.total_out : 0);
  inflateEnd(&stream);
  return out;
}

TEST(Encode, GzipsTextForWhoTakesIt) {
  const Response plain = text(100'000);
  const Response packed = encode(plain, {.gzip = true});
  EXPECT_EQ(packed.header("Content-Encoding"), "gzip");
  EXPECT_LT(packed.body.size(), plain.body.size() / 2);
  EXPECT_EQ(gunzip(packed.body, plain.body.size() + 1), plain.body);
  EXPECT_EQ(encode(plain, {}).body, plain.body);
}

TEST(Encode, LeavesWhatIsShortNotTextOrEncoded) {
  EXPECT_FALSE(encode(text(100), {.gzip = true}).header("Content-Encoding"));
  Response image = text(5000);
  image.headers = {{"Content-Type", "image/png"}};
  EXPECT_FALSE(encode(image, {.gzip = true, .revalidates = true}).header("ETag"));
  Response ready = text(5000);
  ready.headers.emplace_back("Content-Encoding", "br");
  EXPECT_EQ(encode(ready, {.gzip = true}).body, ready.body);
  Response refusal = text(5000);
  refusal.status = 409;
  EXPECT_EQ(encode(refusal, {.gzip = true, .revalidates = true}).headers.size(), 1u);
}

TEST(Encode, TellsWhoHasItThatItIsUnchanged) {
  const Response first = encode(text(5000), {.revalidates = true});
  const std::string tag = *first.header("ETag");
  EXPECT_EQ(first.header("Cache-Control"), "no-cache");
  for (const std::string& has : {tag, tag.substr(2), "\"other\", " + tag, std::string("*")}) {
    const Response again = encode(text(5000), {.gzip = true, .revalidates = true, .if_none_match = has});
    EXPECT_EQ(again.status, 304) << has;
    EXPECT_EQ(again.body, "");
    EXPECT_EQ(again.header("ETag"), tag);
  }
  EXPECT_EQ(encode(text(6000), {.revalidates = true, .if_none_match = tag}).status, 200);
}

TEST(Encode, ReadsWhatAClientTakes) {
  auto takes = [](const char* list) {
    Request request;
    request.method = "POST";
    request.headers = {{"accept-encoding", list}, {"if-none-match", "\"a\""}};
    return accepts_of(request);
  };
  for (auto yes : {"gzip", "gzip, deflate, br", "br, gzip;q=0.5"}) EXPECT_TRUE(takes(yes).gzip) << yes;
  for (auto no : {"", "br", "gzip;q=0", "br, gzip;q=0.0"}) EXPECT_FALSE(takes(no).gzip) << no;
  EXPECT_EQ(takes("").if_none_match, "");  // of a POST: a tag says nothing
}

}  // namespace
}  // namespace th::http
