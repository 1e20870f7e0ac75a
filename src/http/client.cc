#include "http/client.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <unordered_map>

#include "base/log.h"
#include "http/url.h"
#include "http/wire.h"

namespace th::http {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using tcp = asio::ip::tcp;

constexpr size_t kReadBytes = size_t{16} << 10;

/// What the calls of one client share; outlives each of them.
struct Shared {
  asio::io_context io;
  std::mutex mutex;
  std::unordered_map<Client::Running*, std::weak_ptr<Client::Running>> running;  // by mutex
};

void run(asio::io_context& io) {
  while (true) {
    try {
      io.run();
      return;
    } catch (const std::exception& e) {
      log_error("a callback of the HTTP client threw: {}", e.what());
    }
  }
}

/// The URL without its query, which may hold what logs must not.
std::string describe(const Call& call) { return call.method + " " + call.url.substr(0, call.url.find('?')); }

}  // namespace

/// One call under way. Everything runs on its strand.
class Client::Running : public std::enable_shared_from_this<Client::Running> {
 public:
  enum class Deadline { kHead, kWhole };

  Running(std::shared_ptr<Shared> shared, Call call, Callbacks callbacks, Deadline deadline)
      : shared_(std::move(shared)),
        strand_(asio::make_strand(shared_->io)),
        call_(std::move(call)),
        callbacks_(std::move(callbacks)),
        deadline_(deadline),
        resolver_(strand_),
        socket_(strand_),
        timer_(strand_),
        reader_(call_.method == "HEAD") {}
  ~Running() {
    std::scoped_lock lock(shared_->mutex);
    shared_->running.erase(this);
  }

  void start() {
    {
      std::scoped_lock lock(shared_->mutex);
      shared_->running.emplace(this, weak_from_this());
    }
    asio::post(strand_, [self = shared_from_this()] { self->begin(); });
  }
  void cancel() {
    asio::post(strand_, [weak = weak_from_this()] {
      if (auto self = weak.lock())
        self->finish(fail(Code::kCancelled, describe(self->call_) + ": cancelled"));
    });
  }

 private:
  void begin() {
    if (done_) return;
    auto url = parse_url(call_.url);
    if (!url) return finish(fail(url.error()));
    auto head = render_request(call_.method, url->target, url->host_header, call_.headers, call_.body.size());
    if (!head) return finish(fail(head.error()));
    url_ = *std::move(url);
    request_ = *head + call_.body;
    arm(call_.timeout_ns);
    error_code ec;
    auto address = asio::ip::make_address(url_.host, ec);
    if (!ec) {
      std::array<tcp::endpoint, 1> one = {tcp::endpoint(address, url_.port)};
      return connect(one);
    }
    resolver_.async_resolve(url_.host, std::to_string(url_.port),
                            [self = shared_from_this()](error_code ec, tcp::resolver::results_type found) {
                              if (ec) return self->unavailable("host not found: " + ec.message());
                              self->connect(found);
                            });
  }

  template <class Endpoints>
  void connect(const Endpoints& endpoints) {
    if (done_) return;
    asio::async_connect(socket_, endpoints, [self = shared_from_this()](error_code ec, const tcp::endpoint&) {
      if (self->done_) return;
      if (ec) return self->unavailable(ec.message());
      ::fcntl(self->socket_.native_handle(), F_SETFD, FD_CLOEXEC);
      self->socket_.set_option(tcp::no_delay(true), ec);
      self->url_.tls ? self->handshake() : self->write();
    });
  }

  void handshake() {
    error_code ec;
    tls_context_.emplace(asio::ssl::context::tls_client);
    if (call_.authority_pem.empty()) {
      tls_context_->set_default_verify_paths(ec);
    } else {
      tls_context_->add_certificate_authority(asio::buffer(call_.authority_pem), ec);
      if (ec) return finish(fail(Code::kInvalidArgument, describe(call_) + ": authority: " + ec.message()));
    }
    tls_context_->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 |
                                  asio::ssl::context::no_tlsv1_1,
                              ec);
    tls_.emplace(socket_, *tls_context_);
    tls_->set_verify_mode(asio::ssl::verify_peer, ec);
    tls_->set_verify_callback(asio::ssl::host_name_verification(url_.host), ec);
    SSL_set_tlsext_host_name(tls_->native_handle(), url_.host.c_str());
    tls_->async_handshake(asio::ssl::stream_base::client, [self = shared_from_this()](error_code ec) {
      if (self->done_) return;
      if (ec) return self->unavailable("TLS: " + self->tls_problem(ec));
      self->write();
    });
  }

  /// A certificate that is refused is refused for a reason that helps.
  std::string tls_problem(error_code ec) {
    const long verified = SSL_get_verify_result(tls_->native_handle());
    if (verified == X509_V_OK) return ec.message();
    return fmt::format("the certificate of {} is refused: {}", url_.host,
                       X509_verify_cert_error_string(verified));
  }

  /// Calls `use` with the plain or the encrypted stream.
  template <class Use>
  void with_stream(Use use) {
    tls_ ? use(*tls_) : use(socket_);
  }

  void write() {
    with_stream([this](auto& stream) {
      asio::async_write(stream, asio::buffer(request_), [self = shared_from_this()](error_code ec, size_t) {
        // A server may refuse before it read all; its answer is then worth reading.
        bool refused = ec == asio::error::connection_reset || ec == asio::error::broken_pipe;
        if (self->done_ || !ec || refused) return;
        self->unavailable(ec.message());
      });
    });
    read();
  }

  void read() {
    with_stream([this](auto& stream) {
      stream.async_read_some(asio::buffer(chunk_), [self = shared_from_this()](error_code ec, size_t bytes) {
        if (!self->done_) self->on_read(ec, bytes);
      });
    });
  }

  void on_read(error_code ec, size_t bytes) {
    if (ec == asio::error::eof) {
      auto end = reader_.feed_end();
      if (end && !deliver()) return;
      return end ? finish({}) : unavailable(end.error().message);
    }
    if (ec) return unavailable(ec.message());
    input_.append(chunk_.data(), bytes);
    Fed fed = reader_.feed(input_);
    input_.erase(0, fed.consumed);
    if (fed.bad_status != 0) return unavailable("the answer is not HTTP: " + fed.problem);
    if (!deliver()) return;
    if (fed.done) return finish({});
    read();
  }

  /// Hands on what is there. Returns: go on.
  bool deliver() {
    if (!told_head_) {
      if (!reader_.has_head()) return true;
      told_head_ = true;
      if (callbacks_.on_head) callbacks_.on_head(reader_.status(), reader_.headers());
      if (deadline_ == Deadline::kHead) timer_.cancel();
    }
    if (deadline_ == Deadline::kHead && call_.idle_timeout_ns > 0) arm(call_.idle_timeout_ns);
    std::string piece = reader_.take_body();
    if (piece.empty() || !callbacks_.on_data || callbacks_.on_data(piece)) return true;
    finish(fail(Code::kCancelled, describe(call_) + ": cancelled by its reader"));
    return false;
  }

  void arm(int64_t timeout_ns) {
    timer_.expires_after(std::chrono::nanoseconds(timeout_ns));
    timer_.async_wait([self = shared_from_this(), timeout_ns](error_code ec) {
      // A timer that was armed anew after it fired is not due yet.
      if (ec || self->timer_.expiry() > asio::steady_timer::clock_type::now()) return;
      self->finish(fail(Code::kDeadlineExceeded, fmt::format("{}: nothing within {}", describe(self->call_),
                                                             format_duration(timeout_ns))));
    });
  }

  void unavailable(const std::string& why) {
    finish(fail(Code::kUnavailable, fmt::format("{}: {}", describe(call_), why)));
  }

  void finish(Status end) {
    if (done_) return;
    done_ = true;
    timer_.cancel();
    resolver_.cancel();
    error_code ec;
    socket_.close(ec);
    auto callbacks = std::exchange(callbacks_, {});
    if (callbacks.on_end) callbacks.on_end(std::move(end));
  }

  const std::shared_ptr<Shared> shared_;
  const asio::strand<asio::io_context::executor_type> strand_;
  const Call call_;
  Callbacks callbacks_;
  const Deadline deadline_;
  tcp::resolver resolver_;
  tcp::socket socket_;
  std::optional<asio::ssl::context> tls_context_;
  std::optional<asio::ssl::stream<tcp::socket&>> tls_;
  asio::steady_timer timer_;
  Url url_;
  std::string request_;
  std::array<char, kReadBytes> chunk_;
  std::string input_;
  ResponseReader reader_;
  bool told_head_ = false;
  bool done_ = false;
};

class Client::Impl {
 public:
  explicit Impl(int threads)
      : shared_(std::make_shared<Shared>()), work_(asio::make_work_guard(shared_->io)) {
    for (int i = 0; i < std::max(threads, 1); ++i)
      threads_.emplace_back([shared = shared_] { run(shared->io); });
  }
  ~Impl() {
    std::vector<Handle> running;
    {
      std::scoped_lock lock(shared_->mutex);
      for (const auto& [pointer, weak] : shared_->running) {
        if (auto handle = weak.lock()) running.push_back(std::move(handle));
      }
    }
    for (const auto& handle : running) handle->cancel();
    work_.reset();  // run() returns when the last call has ended; then the threads are joined
  }
  const std::shared_ptr<Shared>& shared() const { return shared_; }

 private:
  const std::shared_ptr<Shared> shared_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::vector<std::jthread> threads_;
};

Client::Client(int threads) : impl_(std::make_unique<Impl>(threads)) {}
Client::~Client() = default;

Client::Handle Client::start(Call call, Callbacks callbacks) {
  auto handle = std::make_shared<Running>(impl_->shared(), std::move(call), std::move(callbacks),
                                          Running::Deadline::kHead);
  handle->start();
  return handle;
}

void Client::cancel(const Handle& handle) {
  if (handle) handle->cancel();
}

Result<Response> fetch(const Call& call) {
  Response response;
  Status end = fail(Code::kInternal, describe(call) + ": ended without an answer");
  bool too_large = false;
  Client::Callbacks callbacks;
  callbacks.on_head = [&](int status, const Headers& headers) {
    response.status = status;
    response.headers = headers;
  };
  callbacks.on_data = [&](std::string_view piece) {
    too_large = response.body.size() + piece.size() > call.max_body_bytes;
    if (!too_large) response.body += piece;
    return !too_large;
  };
  callbacks.on_end = [&](Status status) { end = std::move(status); };
  try {
    auto shared = std::make_shared<Shared>();
    std::make_shared<Client::Running>(shared, call, std::move(callbacks), Client::Running::Deadline::kWhole)
        ->start();
    shared->io.run();
  } catch (const std::exception& e) {
    return fail(Code::kInternal, fmt::format("{}: {}", describe(call), e.what()));
  }
  if (too_large) {
    return fail(Code::kResourceExhausted, fmt::format("{}: the answer is over {}", describe(call),
                                                      format_bytes(int64_t(call.max_body_bytes))));
  }
  if (!end) return fail(std::move(end).error());
  return response;
}

Result<Json> fetch_json(const Call& call) {
  TH_TRY(Response response, fetch(call));
  if (response.status < 200 || response.status > 299) return fail(error_of(response));
  if (response.body.empty()) return Json(nullptr);
  return parse_json(response.body, describe(call));
}

Result<Json> fetch_json(Call call, const Json& body) {
  if (call.method == "GET") call.method = "POST";
  call.headers.emplace_back("Content-Type", "application/json");
  call.body = dump_json(body);
  return fetch_json(call);
}

}  // namespace th::http
