#include "collective/gloo/mesh.h"

#include <fmt/format.h>
#include <gloo/transport/context.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>

#include <csignal>
#include <mutex>

namespace th::collective {
namespace {

// Who hangs is found by the meeting; Gloo's own timeouts do not tell one that computes from one that is gone.
constexpr auto kNoTimeout = std::chrono::hours(1000);
constexpr auto kConnectTimeout = std::chrono::seconds(5);  // Gloo takes five times as long

void ignore_sigpipe() {
  struct sigaction now {};
  if (sigaction(SIGPIPE, nullptr, &now) == 0 && now.sa_handler == SIG_DFL) std::signal(SIGPIPE, SIG_IGN);
}

}  // namespace

class Mesh::Impl {
 public:
  Impl(Meeting& meeting, std::shared_ptr<gloo::transport::Context> context)
      : meeting_(meeting), context_(std::move(context)) {}

  Status exchange(std::span<const Part> sends, std::span<const Part> receives, uint64_t tag) {
    int rank = meeting_.rank();  // whom we are at, for the message
    try {
      if (!open(sends, receives)) return fail(Code::kUnavailable, "the group is broken");
      for (Transfer& t : transfers_) {
        rank = t.rank;
        if (t.is_send) t.buffer->send(t.rank, tag);
        if (!t.is_send) t.buffer->recv(t.rank, tag);
      }
      bool whole = true;
      for (Transfer& t : transfers_) {
        rank = t.rank;
        whole = whole && (t.is_send ? t.buffer->waitSend(nullptr, kNoTimeout)
                                    : t.buffer->waitRecv(nullptr, kNoTimeout));
      }
      close();
      if (!whole) return fail(Code::kUnavailable, "the group is broken");
      return {};
    } catch (const std::exception& error) {
      close();
      return fail(Code::kUnavailable, fmt::format("{}: {}", meeting_.name_of(rank), error.what()));
    }
  }

  void abort() {
    const std::lock_guard lock(mutex_);
    aborted_ = true;
    for (Transfer& t : transfers_) {
      if (t.is_send) t.buffer->abortWaitSend();
      if (!t.is_send) t.buffer->abortWaitRecv();
    }
  }

 private:
  struct Transfer {
    int rank;
    bool is_send;
    std::unique_ptr<gloo::transport::UnboundBuffer> buffer;
  };

  bool open(std::span<const Part> sends, std::span<const Part> receives) {
    const std::lock_guard lock(mutex_);
    for (const auto& [parts, is_send] : {std::pair(receives, false), std::pair(sends, true)}) {
      for (const Part& part : parts) {
        if (part.data.empty()) continue;
        transfers_.push_back(
            {part.rank, is_send, context_->createUnboundBuffer(part.data.data(), part.data.size_bytes())});
      }
    }
    return !aborted_;
  }

  void close() {
    const std::lock_guard lock(mutex_);
    transfers_.clear();
  }

  Meeting& meeting_;
  std::shared_ptr<gloo::transport::Context> context_;
  std::mutex mutex_;
  bool aborted_ = false;
  std::vector<Transfer> transfers_;
};

Mesh::Mesh(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Mesh::Mesh(Mesh&&) noexcept = default;
Mesh::~Mesh() = default;

Result<Mesh> Mesh::connect(Meeting& meeting, const std::set<int>& ranks) {
  ignore_sigpipe();
  int at = meeting.rank();
  try {
    gloo::transport::tcp::attr attributes(meeting.address().c_str());
    auto device = gloo::transport::tcp::CreateDevice(attributes);
    auto context = device->createContext(meeting.rank(), static_cast<int>(meeting.places().size()));
    context->setTimeout(kConnectTimeout);
    std::map<int, std::string> ours;
    for (int rank : ranks) {
      const std::vector<char> address = context->createPair(rank)->address().bytes();
      ours[rank] = std::string(address.begin(), address.end());
    }
    TH_TRY(auto theirs, meeting.swap(ours));
    for (int rank : ranks) {
      at = rank;
      const std::string& address = theirs[rank];
      context->getPair(rank)->connect({address.begin(), address.end()});
    }
    return Mesh(std::make_unique<Impl>(meeting, std::move(context)));
  } catch (const std::exception& error) {
    return fail(Code::kUnavailable, fmt::format("no connection from {} to {}: {}", meeting.address(),
                                                meeting.name_of(at), error.what()));
  }
}

Status Mesh::exchange(std::span<const Part> sends, std::span<const Part> receives, uint64_t tag) {
  return impl_->exchange(sends, receives, tag);
}
void Mesh::abort() { impl_->abort(); }

}  // namespace th::collective
