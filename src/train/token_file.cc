#include "train/token_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cstring>

namespace th::train {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "tokens are read as they lie in the file");

constexpr char kMagic[] = "THTOKENS";
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderBytes = 128;
constexpr size_t kDigestBytes = 32;
constexpr size_t kBufferBytes = size_t{1} << 20;
constexpr int64_t kMaxVocab = 1'000'000;
constexpr int64_t kMaxTokens = int64_t{1} << 50;

/// As it lies in the file.
struct RawHeader {
  char magic[8];
  uint32_t version;
  uint32_t token_bytes;
  uint64_t vocab_size, num_tokens, num_documents, text_bytes;
  unsigned char sha256[kDigestBytes];
  char zeros[48];
};
static_assert(sizeof(RawHeader) == kHeaderBytes);

std::string hex(std::span<const unsigned char> bytes) {
  std::string text;
  for (unsigned char byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

int64_t padded(int64_t bytes) { return (bytes + 7) / 8 * 8; }

/// Where the documents' offsets begin.
int64_t offsets_at(const TokenHeader& header) {
  return static_cast<int64_t>(kHeaderBytes) + padded(header.num_tokens * header.token_bytes());
}

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    TH_CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }
  void add(std::string_view bytes) {
    TH_CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
  }
  void finish(unsigned char* digest) { TH_CHECK(EVP_DigestFinal_ex(context_.get(), digest, nullptr) == 1); }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
};

template <class T>
void widen(const char* from, int64_t count, std::vector<int32_t>& out) {
  const size_t old = out.size();
  out.resize(old + count);
  for (int64_t i = 0; i < count; ++i) {
    T id;
    std::memcpy(&id, from + i * sizeof(T), sizeof(T));
    out[old + i] = static_cast<int32_t>(id);
  }
}

template <class T>
bool all_below(const char* from, int64_t count, uint32_t limit) {
  uint32_t most = 0;
  for (int64_t i = 0; i < count; ++i) {
    T id;
    std::memcpy(&id, from + i * sizeof(T), sizeof(T));
    most = std::max<uint32_t>(most, id);
  }
  return count == 0 || most < limit;
}

uint64_t offset_at(const char* file, const TokenHeader& header, int64_t index) {
  uint64_t offset;
  std::memcpy(&offset, file + offsets_at(header) + index * 8, 8);
  return offset;
}

Result<TokenHeader> parse_header(std::string_view file, std::string_view what) {
  auto bad = [&](std::string_view problem) {
    return fail(Code::kDataLoss, fmt::format("{}: {}", what, problem));
  };
  RawHeader raw;
  if (file.size() < kHeaderBytes) return bad("is shorter than the header of a token file");
  std::memcpy(&raw, file.data(), kHeaderBytes);
  if (std::memcmp(raw.magic, kMagic, sizeof(raw.magic)) != 0) return bad("is not a token file");
  if (raw.version != kVersion) return bad(fmt::format("token file version {} is not known", raw.version));
  if (raw.vocab_size == 0 || raw.vocab_size > kMaxVocab)
    return bad(fmt::format("a vocabulary of {} is out of range", raw.vocab_size));
  if (raw.num_tokens > kMaxTokens || raw.num_documents > raw.num_tokens || raw.text_bytes > kMaxTokens)
    return bad("its header counts more than can be");
  TokenHeader header{static_cast<int32_t>(raw.vocab_size), static_cast<int64_t>(raw.num_tokens),
                     static_cast<int64_t>(raw.num_documents), static_cast<int64_t>(raw.text_bytes),
                     hex(raw.sha256)};
  if (raw.token_bytes != header.token_bytes())
    return bad(
        fmt::format("{} bytes a token do not fit a vocabulary of {}", raw.token_bytes, raw.vocab_size));
  const int64_t want = offsets_at(header) + header.num_documents * 8;
  if (static_cast<int64_t>(file.size()) != want)
    return bad(
        fmt::format("is {} bytes long, by its header {}: it is truncated or forged", file.size(), want));
  return header;
}

Status write_all(int fd, std::string_view bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno != EINTR) return fail(errno_error(path.string(), errno));
    if (n > 0) bytes.remove_prefix(n);
  }
  return {};
}

}  // namespace

Result<TokenHeader> parse_token_file(std::string_view file, std::string_view what) {
  auto bad = [&](std::string_view problem) {
    return fail(Code::kDataLoss, fmt::format("{}: {}", what, problem));
  };
  TH_TRY(TokenHeader header, parse_header(file, what));
  Sha256 sha;
  sha.add(file.substr(kHeaderBytes));
  unsigned char digest[kDigestBytes];
  sha.finish(digest);
  if (hex(digest) != header.sha256) return bad("its checksum does not match: it is damaged; make it again");
  const char* tokens = file.data() + kHeaderBytes;
  const auto limit = static_cast<uint32_t>(header.vocab_size);
  if (!(header.token_bytes() == 2 ? all_below<uint16_t>(tokens, header.num_tokens, limit)
                                  : all_below<uint32_t>(tokens, header.num_tokens, limit)))
    return bad(fmt::format("has a token outside of its vocabulary of {}", header.vocab_size));
  int64_t last = -1;
  for (int64_t i = 0; i < header.num_documents; ++i) {
    const uint64_t begin = offset_at(file.data(), header, i);
    if (begin >= static_cast<uint64_t>(header.num_tokens) || static_cast<int64_t>(begin) <= last)
      return bad(fmt::format("document {} is out of order", i));
    last = static_cast<int64_t>(begin);
  }
  return header;
}

Result<TokenFile> TokenFile::open(const fs::path& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0) return fail(errno_error(path.string(), errno));
  const auto size = static_cast<size_t>(info.st_size);
  if (!S_ISREG(info.st_mode) || size < kHeaderBytes)
    return fail(Code::kDataLoss, path.string() + ": is not a token file");
  void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (mapped == MAP_FAILED) return fail(errno_error("mapping " + path.string(), errno));
  std::shared_ptr<const char> file(static_cast<const char*>(mapped),
                                   [size](const char* at) { ::munmap(const_cast<char*>(at), size); });
  TH_TRY(TokenHeader header, parse_token_file({file.get(), size}, path.string()));
  return TokenFile(std::move(header), std::move(file));
}

void TokenFile::tokens(int64_t begin, int64_t count, std::vector<int32_t>& out) const {
  TH_CHECK(begin >= 0 && count >= 0 && begin + count <= header_.num_tokens);
  const char* from = file_.get() + kHeaderBytes + begin * header_.token_bytes();
  header_.token_bytes() == 2 ? widen<uint16_t>(from, count, out) : widen<uint32_t>(from, count, out);
}

int64_t TokenFile::document_begin(int64_t index) const {
  TH_CHECK(index >= 0 && index < header_.num_documents);
  return static_cast<int64_t>(offset_at(file_.get(), header_, index));
}

/// A temporary file that is filled through a buffer; removed unless it got its name.
struct TokenWriter::Impl {
  struct Part {
    fs::path path;
    UniqueFd fd;
    std::string buffer;

    Status open(fs::path at) {
      path = std::move(at);
      fd = UniqueFd(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
      return fd ? Status() : fail(errno_error(path.string(), errno));
    }
    Status flush() {
      TH_RETURN_IF_ERROR(write_all(fd.get(), buffer, path));
      buffer.clear();
      return {};
    }
    template <class T>
    void put(T value) {
      buffer.append(reinterpret_cast<const char*>(&value), sizeof(T));
    }
    ~Part() {
      if (fd) ::unlink(path.c_str());
    }
  };

  fs::path path;
  TokenHeader header;
  Part body, offsets;
  Sha256 sha;

  Status flush_body() {
    sha.add(body.buffer);
    return body.flush();
  }
  Status append_offsets();
};

/// The offsets lay in a file of their own, since there may be more of them than memory.
Status TokenWriter::Impl::append_offsets() {
  TH_RETURN_IF_ERROR(offsets.flush());
  if (::lseek(offsets.fd.get(), 0, SEEK_SET) != 0) return fail(errno_error(offsets.path.string(), errno));
  while (true) {
    body.buffer.resize(kBufferBytes);
    const ssize_t n = ::read(offsets.fd.get(), body.buffer.data(), body.buffer.size());
    if (n < 0 && errno != EINTR) return fail(errno_error(offsets.path.string(), errno));
    body.buffer.resize(std::max<ssize_t>(n, 0));
    if (n == 0) return {};
    TH_RETURN_IF_ERROR(flush_body());
  }
}

TokenWriter::TokenWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TokenWriter::TokenWriter(TokenWriter&&) noexcept = default;
TokenWriter::~TokenWriter() = default;

Result<TokenWriter> TokenWriter::create(const fs::path& path, int32_t vocab_size) {
  TH_CHECK(vocab_size > 0 && vocab_size <= kMaxVocab);
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->header.vocab_size = vocab_size;
  TH_RETURN_IF_ERROR(impl->body.open(path.string() + ".tmp"));
  TH_RETURN_IF_ERROR(impl->offsets.open(path.string() + ".documents.tmp"));
  TH_RETURN_IF_ERROR(write_all(impl->body.fd.get(), std::string(kHeaderBytes, '\0'), impl->body.path));
  return TokenWriter(std::move(impl));
}

Status TokenWriter::add_document(std::span<const int32_t> tokens, int64_t text_bytes) {
  TokenHeader& header = impl_->header;
  if (tokens.empty()) return {};
  impl_->offsets.put(static_cast<uint64_t>(header.num_tokens));
  if (impl_->offsets.buffer.size() >= kBufferBytes) TH_RETURN_IF_ERROR(impl_->offsets.flush());
  for (const int32_t id : tokens) {
    TH_CHECK(id >= 0 && id < header.vocab_size);
    header.token_bytes() == 2 ? impl_->body.put(static_cast<uint16_t>(id)) : impl_->body.put(id);
    if (impl_->body.buffer.size() >= kBufferBytes) TH_RETURN_IF_ERROR(impl_->flush_body());
  }
  header.num_tokens += static_cast<int64_t>(tokens.size());
  header.num_documents += 1;
  header.text_bytes += text_bytes;
  return {};
}

Result<TokenHeader> TokenWriter::finish() {
  TokenHeader& header = impl_->header;
  Impl::Part& body = impl_->body;
  const int64_t bytes = header.num_tokens * header.token_bytes();
  body.buffer.append(padded(bytes) - bytes, '\0');
  TH_RETURN_IF_ERROR(impl_->flush_body());
  TH_RETURN_IF_ERROR(impl_->append_offsets());
  RawHeader raw{};
  std::memcpy(raw.magic, kMagic, sizeof(raw.magic));
  raw.version = kVersion, raw.token_bytes = static_cast<uint32_t>(header.token_bytes());
  raw.vocab_size = header.vocab_size, raw.num_tokens = header.num_tokens;
  raw.num_documents = header.num_documents, raw.text_bytes = header.text_bytes;
  impl_->sha.finish(raw.sha256);
  header.sha256 = hex(raw.sha256);
  if (::pwrite(body.fd.get(), &raw, sizeof(raw), 0) != sizeof(raw) || ::fsync(body.fd.get()) != 0)
    return fail(errno_error(body.path.string(), errno));
  if (::rename(body.path.c_str(), impl_->path.c_str()) != 0)
    return fail(errno_error(impl_->path.string(), errno));
  body.fd = UniqueFd();
  TH_RETURN_IF_ERROR(sync_folder(impl_->path.has_parent_path() ? impl_->path.parent_path() : "."));
  return header;
}

}  // namespace th::train
