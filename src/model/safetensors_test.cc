#include "model/safetensors.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <span>
#include <vector>

#include "base/files.h"

namespace th::model {
namespace {

std::string file_of(std::string_view header, size_t data_bytes) {
  std::string bytes(8, '\0');
  const uint64_t size = header.size();
  std::memcpy(bytes.data(), &size, 8);
  return bytes + std::string(header) + std::string(data_bytes, '\1');
}

std::string error_of(std::string_view header, size_t data_bytes) {
  auto file = SafetensorsFile::parse(file_of(header, data_bytes), "f");
  EXPECT_FALSE(file.has_value()) << header;
  if (file) return "";
  EXPECT_EQ(file.error().code, Code::kDataLoss);
  return file.error().message;
}

class SafetensorsFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "safetensors_XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

TEST_F(SafetensorsFileTest, WritesAndReads) {
  const std::vector<float> a = {1, 2, 3, 4, 5, 6}, b = {-1};
  const std::vector<F32Tensor> tensors = {{"b.weight", {2, 3}, a}, {"a", {}, b}, {"none", {0, 4}, {}}};
  ASSERT_TRUE(write_safetensors(folder_ / "m.safetensors", tensors, {{"format", "pt"}}));
  const SafetensorsFile file = SafetensorsFile::open(folder_ / "m.safetensors").value();
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.tensors().size(), 3u);
  const SafeTensor& matrix = *file.find("b.weight");
  EXPECT_EQ(matrix.dtype, "F32");
  EXPECT_EQ(matrix.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_TRUE(std::ranges::equal(matrix.data, std::as_bytes(std::span(a))));
  EXPECT_TRUE(std::ranges::equal(file.find("a")->data, std::as_bytes(std::span(b))));
  EXPECT_EQ(file.find("none")->size(), 0);
  EXPECT_EQ(file.find("c"), nullptr);
}

TEST_F(SafetensorsFileTest, RefusesToWriteNonsense) {
  const std::vector<float> a = {1, 2};
  const auto path = folder_ / "m.safetensors";
  EXPECT_EQ(write_safetensors(path, std::vector<F32Tensor>{{"a", {3}, a}}, {}).error().code,
            Code::kInvalidArgument);
  EXPECT_EQ(write_safetensors(path, std::vector<F32Tensor>{{"a", {2}, a}, {"a", {2}, a}}, {}).error().code,
            Code::kInvalidArgument);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(SafetensorsFileTest, TruncatedAnywhereIsAnError) {
  const std::vector<float> a = {1, 2};
  ASSERT_TRUE(write_safetensors(folder_ / "m", std::vector<F32Tensor>{{"a", {2}, a}}, {}));
  const std::string whole = read_file(folder_ / "m").value();
  EXPECT_TRUE(SafetensorsFile::parse(whole, "f"));
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(SafetensorsFile::parse(whole.substr(0, size), "f")) << size;
  }
  std::ofstream(folder_ / "empty");
  EXPECT_EQ(SafetensorsFile::open(folder_ / "empty").error().code, Code::kDataLoss);
  EXPECT_EQ(SafetensorsFile::open(folder_ / "none").error().code, Code::kNotFound);
  EXPECT_EQ(SafetensorsFile::open(folder_).error().code, Code::kInvalidArgument);
}

TEST(Safetensors, NamesWhatAForgedHeaderGotWrong) {
  auto has = [](std::string_view header, size_t data_bytes, std::string_view part) {
    const std::string message = error_of(header, data_bytes);
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  has("[1]", 0, "not a JSON object");
  has("{", 0, "not a JSON object");
  has(R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", 4, "unknown dtype");
  has(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "needs 8 bytes");
  has(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "integers >= 0");
  has(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0, "overflows");
  has(R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0, "overflows");
  has(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 4, "outside of the data");
  has(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "outside of the data");
  has(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}})", 4,
      "outside of the data");
  has(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})",
      4, "overlaps");
  has(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "4 bytes before tensor 'a'");
  has(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8, "4 bytes at the end");
  has(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
      1, "'a' stands twice");
  has(R"({"a":{"dtype":"U8","shape":[1]}})", 1, "want an object with");
  has(R"({"__metadata__":{"k":1}})", 0, "want texts");
  std::string forged = file_of("{}", 0);
  std::memset(forged.data(), 0xff, 8);
  EXPECT_NE(SafetensorsFile::parse(forged, "f").error().message.find("over the limit"), std::string::npos);
}

}  // namespace
}  // namespace th::model
