#include "http/server.h"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>
#include <unordered_map>

#include "base/log.h"
#include "http/exchange.h"
#include "http/sockets.h"
#include "http/url.h"
#include "http/wire.h"

namespace th::http {

namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using tcp = asio::ip::tcp;
using Strand = asio::strand<asio::io_context::executor_type>;
using Socket = asio::basic_stream_socket<tcp, Strand>;
using Acceptor = asio::basic_socket_acceptor<tcp, Strand>;

constexpr size_t kReadBytes = size_t{8} << 10;
constexpr size_t kMaxPipelinedBytes = size_t{64} << 10;  // read ahead while an answer is pending
constexpr size_t kMaxLingerBytes = size_t{4} << 20;      // read and dropped after a refusal
constexpr int64_t kLingerNs = 2'000'000'000;
constexpr int64_t kNever = INT64_MAX;

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class Connection;

/// What the server's parts share; connections keep it alive.
class Core {
 public:
  Core(ServerOptions options, Router router, Listening listening)
      : options(std::move(options)),
        router(std::move(router)),
        port(listening.port),
        io(std::make_shared<asio::io_context>(this->options.threads)),
        acceptor(asio::make_strand(*io), listening.v6 ? tcp::v6() : tcp::v4(), listening.fd.release()),
        sweep(acceptor.get_executor()) {}

  void accept(const std::shared_ptr<Core>& self);
  void sweep_later(const std::shared_ptr<Core>& self);
  void stop(const std::shared_ptr<Core>& self);
  bool add(const std::shared_ptr<Connection>& connection);
  void forget(Connection* connection, const std::shared_ptr<Core>& self);
  std::vector<std::shared_ptr<Connection>> connections() const;

  const ServerOptions options;
  const Router router;
  const uint16_t port;
  const std::shared_ptr<asio::io_context> io;
  Acceptor acceptor;
  asio::steady_timer sweep;

 private:
  mutable std::mutex mutex_;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections_;
  bool stopping_ = false;
  bool accept_paused_ = false;
};

/// One client. All members but those of ExchangeSink run on its strand. One read is always under way, so that
/// a client that leaves is noticed while its answer is still being made.
class Connection : public ExchangeSink, public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<Core> core, Socket socket)
      : core_(std::move(core)),
        socket_(std::move(socket)),
        peer_(prepare_accepted(socket_.native_handle())) {}

  void start() {
    asio::post(socket_.get_executor(), [self = shared_from_this()] { self->next_request(); });
  }
  // Weak, since the server may have stopped: its queue would otherwise own itself through what it holds.
  void wake() override {
    asio::post(socket_.get_executor(), [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->flush();
    });
  }
  void abort() override {
    asio::post(socket_.get_executor(), [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->drop();
    });
  }
  /// Thread: any.
  int64_t deadline_ns() const { return deadline_ns_.load(std::memory_order_relaxed); }

 private:
  enum class State { kReading, kBusy, kLingering, kClosed };

  void allow(int64_t ns) { deadline_ns_.store(now_ns() + ns, std::memory_order_relaxed); }
  void allow_forever() { deadline_ns_.store(kNever, std::memory_order_relaxed); }

  void next_request() {
    if (state_ == State::kClosed) return;
    reader_.emplace(core_->options.max_header_bytes, core_->options.max_body_bytes);
    state_ = State::kReading;
    request_begun_ = sent_continue_ = false;
    allow(core_->options.idle_timeout_ns);
    input_.empty() ? read() : parse();
  }

  void read() {
    if (reading_ || state_ == State::kClosed) return;
    reading_ = true;
    socket_.async_read_some(asio::buffer(chunk_), [self = shared_from_this()](error_code ec, size_t bytes) {
      self->reading_ = false;
      self->on_read(ec, bytes);
    });
  }

  void on_read(error_code ec, size_t bytes) {
    if (state_ == State::kClosed) return;
    if (ec) return on_read_end();
    if (state_ == State::kLingering) {
      lingered_bytes_ += bytes;
      return lingered_bytes_ > kMaxLingerBytes ? drop() : read();
    }
    input_.append(chunk_.data(), bytes);
    if (state_ == State::kReading) return parse();
    if (input_.size() < kMaxPipelinedBytes) read();
  }

  void on_read_end() {
    // A client may close its half once it asked; what it is owed is still written if it is there already.
    bool owed = state_ == State::kBusy && (exchange_ == nullptr || exchange_->finished());
    if (!owed) return drop();
    half_closed_ = true;
  }

  void parse() {
    if (!request_begun_) {
      request_begun_ = true;  // from here the whole request has one timeout, however slowly it drips
      allow(core_->options.idle_timeout_ns);
    }
    Fed fed = reader_->feed(input_);
    input_.erase(0, fed.consumed);
    if (fed.bad_status != 0) return refuse(fed.bad_status, "not a request that can be read: " + fed.problem);
    if (fed.done) return dispatch();
    if (reader_->wants_continue() && !std::exchange(sent_continue_, true)) {
      write("HTTP/1.1 100 Continue\r\n\r\n", false);
    }
    read();
  }

  void dispatch() {
    Request request = reader_->take();
    auto target = parse_target(request.path);
    if (!target) return refuse(400, target.error().message);
    request.path = std::move(target->path);
    request.query = std::move(target->query);
    request.peer = peer_;
    state_ = State::kBusy;
    allow_forever();
    exchange_ = std::make_shared<Exchange>(
        weak_from_this(), Exchange::Options{.max_queued_bytes = core_->options.max_queued_bytes,
                                            .head_only = request.method == "HEAD",
                                            .http_1_0 = reader_->http_1_0(),
                                            .keep_alive = reader_->keep_alive()});
    read();
    std::string what = request.method + " " + request.path;
    try {
      core_->router.route(std::move(request), make_responder(exchange_));
    } catch (const std::exception& e) {
      log_error("{}: the handler threw: {}", what, e.what());
    }
  }

  /// Answers by itself and closes: after it the bytes of the client make no sense any more.
  void refuse(int status, const std::string& problem) {
    state_ = State::kBusy;
    Response response = error_response({Code::kInvalidArgument, problem});
    std::string head =
        render_head(status, response.headers, {.content_length = response.body.size(), .keep_alive = false});
    write(head + response.body, true);
  }

  void flush() {
    if (state_ != State::kBusy || writing_ || exchange_ == nullptr) return;
    Exchange::Batch batch = exchange_->take();
    if (batch.bytes.empty()) {
      if (batch.last) finish_exchange();
      return;
    }
    write(std::move(batch.bytes), false);
  }

  void write(std::string bytes, bool then_linger) {
    if (writing_) return drop();  // only "100 Continue" can be under way, and only a refusal follows it
    writing_ = true;
    outgoing_ = std::move(bytes);
    auto progress = [self = shared_from_this()](error_code ec, size_t) -> size_t {
      self->allow(self->core_->options.idle_timeout_ns);
      return ec ? 0 : size_t{64} << 10;
    };
    asio::async_write(socket_, asio::buffer(outgoing_), progress,
                      [self = shared_from_this(), then_linger](error_code ec, size_t n) {
                        self->writing_ = false;
                        self->on_written(ec, n, then_linger);
                      });
  }

  void on_written(error_code ec, size_t bytes, bool then_linger) {
    if (state_ == State::kClosed) return;
    if (ec) return drop();
    if (then_linger) return linger();
    if (state_ != State::kBusy) return;  // it was "100 Continue"; the request's deadline goes on
    allow_forever();
    if (exchange_) exchange_->written(bytes);
    flush();
  }

  void finish_exchange() {
    bool keep_alive = exchange_->keep_alive() && !half_closed_;
    exchange_.reset();
    keep_alive ? next_request() : linger();
  }

  /// Closes so that the answer is not lost: a close with unread bytes would reset the connection under it.
  void linger() {
    if (half_closed_) return drop();
    error_code ec;
    socket_.shutdown(tcp::socket::shutdown_send, ec);
    if (ec) return drop();
    state_ = State::kLingering;
    allow(kLingerNs);
    read();
  }

  void drop() {
    if (state_ == State::kClosed) return;
    state_ = State::kClosed;
    error_code ec;
    socket_.close(ec);
    auto exchange = std::move(exchange_);
    core_->forget(this, core_);
    if (!exchange) return;
    try {
      exchange->lose();
    } catch (const std::exception& e) {
      log_error("an on_gone callback threw: {}", e.what());
    }
  }

  const std::shared_ptr<Core> core_;
  Socket socket_;
  const std::string peer_;
  State state_ = State::kReading;
  std::atomic<int64_t> deadline_ns_{kNever};
  std::optional<RequestReader> reader_;
  std::shared_ptr<Exchange> exchange_;
  std::array<char, kReadBytes> chunk_;
  std::string input_;     // read but not parsed
  std::string outgoing_;  // being written
  size_t lingered_bytes_ = 0;
  bool reading_ = false;
  bool writing_ = false;
  bool request_begun_ = false;
  bool sent_continue_ = false;
  bool half_closed_ = false;
};

void Core::accept(const std::shared_ptr<Core>& self) {
  {
    std::scoped_lock lock(mutex_);
    accept_paused_ = connections_.size() >= options.max_connections;
    if (stopping_ || accept_paused_) return;
  }
  acceptor.async_accept(asio::make_strand(*io), [this, self](error_code ec, Socket socket) {
    if (ec == asio::error::operation_aborted || !acceptor.is_open()) return;
    if (!ec) {
      auto connection = std::make_shared<Connection>(self, std::move(socket));
      if (add(connection)) connection->start();
      return accept(self);
    }
    log_warn("accept on port {}: {}", port, ec.message());
    auto pause =
        std::make_shared<asio::steady_timer>(acceptor.get_executor(), std::chrono::milliseconds(100));
    pause->async_wait([this, self, pause](error_code) { accept(self); });
  });
}

/// Coarse timeouts for all connections at once: re-arming a timer per connection and write would cost more.
void Core::sweep_later(const std::shared_ptr<Core>& self) {
  int64_t period_ns = std::clamp<int64_t>(options.idle_timeout_ns / 4, 10'000'000, 500'000'000);
  sweep.expires_after(std::chrono::nanoseconds(period_ns));
  sweep.async_wait([this, self](error_code ec) {
    if (ec || !acceptor.is_open()) return;
    int64_t now = now_ns();
    for (const auto& connection : connections()) {
      if (connection->deadline_ns() < now) connection->abort();
    }
    sweep_later(self);
  });
}

void Core::stop(const std::shared_ptr<Core>& self) {
  {
    std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  asio::post(acceptor.get_executor(), [this, self] {
    error_code ec;
    acceptor.close(ec);
    sweep.cancel();
  });
  for (const auto& connection : connections()) connection->abort();
}

bool Core::add(const std::shared_ptr<Connection>& connection) {
  std::scoped_lock lock(mutex_);
  if (stopping_) return false;
  connections_.emplace(connection.get(), connection);
  return true;
}

void Core::forget(Connection* connection, const std::shared_ptr<Core>& self) {
  std::scoped_lock lock(mutex_);
  connections_.erase(connection);
  if (!accept_paused_ || stopping_) return;
  accept_paused_ = false;
  asio::post(acceptor.get_executor(), [this, self] { accept(self); });
}

std::vector<std::shared_ptr<Connection>> Core::connections() const {
  std::scoped_lock lock(mutex_);
  std::vector<std::shared_ptr<Connection>> all;
  all.reserve(connections_.size());
  for (const auto& [pointer, connection] : connections_) all.push_back(connection);
  return all;
}

void run(asio::io_context& io) {
  while (true) {
    try {
      io.run();
      return;
    } catch (const std::exception& e) {
      log_error("the HTTP server caught: {}", e.what());
    }
  }
}

}  // namespace

class Server::Impl {
 public:
  explicit Impl(std::shared_ptr<Core> core) : core_(std::move(core)) {
    core_->accept(core_);
    core_->sweep_later(core_);
    for (int i = 0; i < core_->options.threads; ++i) threads_.emplace_back([io = core_->io] { run(*io); });
  }
  ~Impl() { core_->stop(core_); }  // run() returns when nothing is left to do; then the threads are joined

  const Core& core() const { return *core_; }

 private:
  const std::shared_ptr<Core> core_;
  std::vector<std::jthread> threads_;
};

Result<std::unique_ptr<Server>> Server::start(ServerOptions options, Router router) {
  if (options.threads < 1) return fail(Code::kInvalidArgument, "an HTTP server needs at least one thread");
  TH_TRY(Listening listening, listen_on(options.address, options.port));
  auto core = std::make_shared<Core>(std::move(options), std::move(router), std::move(listening));
  return std::unique_ptr<Server>(new Server(std::make_unique<Impl>(std::move(core))));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

uint16_t Server::port() const { return impl_->core().port; }
size_t Server::connections() const { return impl_->core().connections().size(); }

}  // namespace th::http
