#include "http/connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/log.h"
#include "http/sockets.h"
#include "http/tls_session.h"
#include "http/url.h"
#include "http/wire.h"

namespace th::http {

namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using tcp = asio::ip::tcp;
using Socket = asio::basic_stream_socket<tcp, asio::strand<asio::io_context::executor_type>>;

constexpr size_t kPieceBytes = size_t{8} << 10;
constexpr size_t kMaxPipelinedBytes = size_t{64} << 10;  // read ahead while an answer is pending
constexpr size_t kMaxLingerBytes = size_t{4} << 20;      // read and dropped after a refusal
constexpr int64_t kLingerNs = 2'000'000'000;
constexpr int64_t kHandshakeNs = 10'000'000'000;
constexpr int64_t kNever = INT64_MAX;

/// One client. All members but those of ExchangeSink run on its strand. One read is always under way, so that
/// a client that leaves is noticed while its answer is still being made.
class TcpConnection : public Connection, public std::enable_shared_from_this<TcpConnection> {
 public:
  TcpConnection(std::shared_ptr<ConnectionHost> host, asio::io_context& io, Accepted accepted)
      : host_(std::move(host)),
        socket_(asio::make_strand(io), accepted.v6 ? tcp::v6() : tcp::v4(), accepted.fd.release()),
        peer_(prepare_accepted(socket_.native_handle())) {
    if (accepted.tls) tls_.emplace(*accepted.tls);
  }

  void start() override {
    asio::post(socket_.get_executor(), [self = shared_from_this()] {
      self->next_request();
      if (self->tls_) self->allow(std::min(kHandshakeNs, self->host_->options().idle_timeout_ns));
    });
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
  void resume() override {
    asio::post(socket_.get_executor(), [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->pass_on();
    });
  }
  int64_t deadline_ns() const override { return deadline_ns_.load(std::memory_order_relaxed); }

 private:
  enum class State { kReading, kBusy, kLingering, kClosed };

  void allow(int64_t ns) { deadline_ns_.store(Env::real().monotonic_ns() + ns, std::memory_order_relaxed); }
  void allow_forever() { deadline_ns_.store(kNever, std::memory_order_relaxed); }

  void next_request() {
    if (state_ == State::kClosed) return;
    reader_.emplace(host_->options().max_header_bytes, host_->options().max_body_bytes);
    state_ = State::kReading;
    request_begun_ = sent_continue_ = false;
    allow(host_->options().idle_timeout_ns);
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
    const std::string_view wire(chunk_.data(), bytes);
    if (!tls_) {
      input_.append(wire);
    } else if (!take_tls(wire)) {
      return;
    }
    if (state_ == State::kReading) return parse();
    if (exchange_ && exchange_->is_tunnel()) return pass_on();
    if (input_.size() < kMaxPipelinedBytes) read();
  }

  /// One piece of a tunnel; the next is read when it asks for it.
  void pass_on() {
    if (state_ != State::kBusy || !exchange_ || !exchange_->is_tunnel()) return;
    if (input_.empty()) return read();
    exchange_->deliver(std::exchange(input_, {}));
  }

  /// Returns: the connection goes on.
  bool take_tls(std::string_view wire) {
    constexpr char kHandshakeRecord = 22;  // RFC 8446, 5.1: what each TLS connection begins with
    if (!spoke_ && wire.front() != kHandshakeRecord) {
      tls_.reset();
      refuse(400, "this port speaks TLS: use https:// in the URL");
      return false;
    }
    spoke_ = true;
    const bool was_ready = tls_->ready();
    const TlsSession::Feed fed = tls_->feed(wire, input_);
    if (fed == TlsSession::Feed::kBroken) {
      state_ = State::kBusy;
      said_bye_ = true;
      write({}, true);  // the alert
      return false;
    }
    if (!was_ready && tls_->ready()) allow(host_->options().idle_timeout_ns);
    if (!writing_ && tls_->has_output()) write({}, false);
    if (fed == TlsSession::Feed::kGoesOn) return true;
    if (state_ == State::kReading && !input_.empty()) parse();
    if (state_ != State::kClosed) on_read_end();
    return false;
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
      allow(host_->options().idle_timeout_ns);
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
    request.tls = tls_.has_value();
    state_ = State::kBusy;
    allow_forever();
    exchange_ = std::make_shared<Exchange>(
        weak_from_this(), Exchange::Options{.max_queued_bytes = host_->options().max_queued_bytes,
                                            .head_only = request.method == "HEAD",
                                            .http_1_0 = reader_->http_1_0(),
                                            .keep_alive = reader_->keep_alive(),
                                            .error_form = host_->options().error_form,
                                            .accepts = accepts_of(request),
                                            .common = host_->options().headers});
    read();
    std::string what = request.method + " " + request.path;
    try {
      host_->router().route(std::move(request), make_responder(exchange_));
    } catch (const std::exception& e) {
      log_error("{}: the handler threw: {}", what, e.what());
    }
  }

  /// Answers by itself and closes: after it the bytes of the client make no sense any more.
  void refuse(int status, const std::string& problem) {
    state_ = State::kBusy;
    Response response = host_->options().error_form({Code::kInvalidArgument, problem}, status);
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
    exchange_bytes_ = batch.bytes.size();
    write(std::move(batch.bytes), false);
  }

  /// With TLS also what the session itself has to say. While something is being written it waits: that is
  /// "100 Continue" or a part of a handshake, and a refusal may follow.
  void write(std::string bytes, bool then_linger) {
    if (writing_) {
      next_ += bytes;
      then_linger_ = then_linger_ || then_linger;
      return;
    }
    writing_ = true;
    then_linger_ = then_linger;
    if (tls_) {
      tls_->seal(bytes);
      bytes = tls_->output();
    }
    outgoing_ = std::move(bytes);
    auto progress = [self = shared_from_this()](error_code ec, size_t) -> size_t {
      // Whoever reads what comes through a tunnel may stop for long; its ends know when to give up.
      const bool tunnel = self->exchange_ && self->exchange_->is_tunnel();
      if (self->state_ == State::kBusy && !tunnel) self->allow(self->host_->options().idle_timeout_ns);
      return ec ? 0 : size_t{64} << 10;
    };
    asio::async_write(socket_, asio::buffer(outgoing_), progress,
                      [self = shared_from_this()](error_code ec, size_t) {
                        self->writing_ = false;
                        self->on_written(ec);
                      });
  }

  void on_written(error_code ec) {
    if (state_ == State::kClosed) return;
    if (ec) return drop();
    if (exchange_) exchange_->written(std::exchange(exchange_bytes_, 0));
    const bool more = !next_.empty() || (tls_ && tls_->has_output());
    if (more) return write(std::exchange(next_, {}), then_linger_);
    if (then_linger_) return linger();
    if (state_ != State::kBusy) return;  // the request's deadline goes on
    allow_forever();
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
    if (tls_ && !std::exchange(said_bye_, true)) {
      tls_->finish();
      return write({}, true);
    }
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
    host_->forget(this);
    if (!exchange) return;
    try {
      exchange->lose();
    } catch (const std::exception& e) {
      log_error("an on_gone callback threw: {}", e.what());
    }
  }

  const std::shared_ptr<ConnectionHost> host_;
  Socket socket_;
  const std::string peer_;
  std::optional<TlsSession> tls_;
  State state_ = State::kReading;
  std::atomic<int64_t> deadline_ns_{kNever};
  std::optional<RequestReader> reader_;
  std::shared_ptr<Exchange> exchange_;
  std::array<char, kPieceBytes> chunk_;
  std::string input_;          // read but not parsed
  std::string outgoing_;       // being written
  std::string next_;           // to be written after it
  size_t exchange_bytes_ = 0;  // of the exchange in outgoing_, before they were encrypted
  size_t lingered_bytes_ = 0;
  bool reading_ = false;
  bool writing_ = false;
  bool request_begun_ = false;
  bool sent_continue_ = false;
  bool half_closed_ = false;
  bool then_linger_ = false;  // when all is written
  bool spoke_ = false;        // the client, at least a byte
  bool said_bye_ = false;     // the TLS session has ended
};

}  // namespace

std::shared_ptr<Connection> make_connection(std::shared_ptr<ConnectionHost> host, asio::io_context& io,
                                            Accepted accepted) {
  return std::make_shared<TcpConnection>(std::move(host), io, std::move(accepted));
}

}  // namespace th::http
