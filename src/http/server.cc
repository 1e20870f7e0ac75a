#include "http/server.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <filesystem>
#include <thread>
#include <unordered_map>

#include "base/env.h"
#include "base/log.h"
#include "http/connection.h"
#include "http/sockets.h"
#include "http/tls_session.h"

namespace th::http {

namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using boost::system::error_code;
using tcp = asio::ip::tcp;
using Acceptor = asio::basic_socket_acceptor<tcp, asio::strand<asio::io_context::executor_type>>;

/// What the server's parts share; connections keep it alive.
class Core : public ConnectionHost, public std::enable_shared_from_this<Core> {
 public:
  Core(ServerOptions options, Router router, Listening listening, std::shared_ptr<const TlsContext> tls)
      : port(listening.port),
        io(std::make_shared<asio::io_context>(options.threads)),
        options_(std::move(options)),
        router_(std::move(router)),
        v6_(listening.v6),
        acceptor_(asio::make_strand(*io), v6_ ? tcp::v6() : tcp::v4(), listening.fd.release()),
        sweep_(acceptor_.get_executor()),
        tls_(std::move(tls)) {
    acceptor_.non_blocking(true);
    if (options_.tls) tls_written_ = write_times();
  }

  void start() {
    asio::post(acceptor_.get_executor(), [self = shared_from_this()] {
      self->accept();
      self->sweep_later();
    });
  }
  void stop();

  const ServerOptions& options() const override { return options_; }
  const Router& router() const override { return router_; }
  void forget(Connection* connection) override;
  std::vector<std::shared_ptr<Connection>> connections() const;

  const uint16_t port;
  const std::shared_ptr<asio::io_context> io;

 private:
  // On the acceptor's strand.
  void accept();
  void on_acceptable();
  void sweep_later();
  void look_at_certificate();

  bool add(const std::shared_ptr<Connection>& connection);
  std::array<fs::file_time_type, 2> write_times() const;

  const ServerOptions options_;
  const Router router_;
  const bool v6_;
  Acceptor acceptor_;
  asio::steady_timer sweep_;
  std::shared_ptr<const TlsContext> tls_;
  std::array<fs::file_time_type, 2> tls_written_;
  int64_t tls_checked_ns_ = Env::real().monotonic_ns();
  mutable std::mutex mutex_;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections_;
  bool stopping_ = false;
  bool accept_paused_ = false;
};

void Core::accept() {
  {
    std::scoped_lock lock(mutex_);
    accept_paused_ = connections_.size() >= options_.max_connections;
    if (stopping_ || accept_paused_) return;
  }
  acceptor_.async_wait(Acceptor::wait_read, [self = shared_from_this()](error_code ec) {
    if (ec != asio::error::operation_aborted && self->acceptor_.is_open()) self->on_acceptable();
  });
}

void Core::on_acceptable() {
  UniqueFd fd(::accept4(acceptor_.native_handle(), nullptr, nullptr, SOCK_CLOEXEC));
  const int problem = errno;
  if (fd) {
    auto connection = make_connection(shared_from_this(), *io, {std::move(fd), v6_, tls_});
    if (add(connection)) connection->start();
    return accept();
  }
  // A client that left before it was accepted is none of the server's problems.
  if (problem == EAGAIN || problem == ECONNABORTED || problem == EINTR) return accept();
  log_warn("accept on port {}: {}", port, errno_error("accept", problem).message);
  auto pause = std::make_shared<asio::steady_timer>(acceptor_.get_executor(), std::chrono::milliseconds(100));
  pause->async_wait([self = shared_from_this(), pause](error_code) { self->accept(); });
}

/// Coarse timeouts for all connections at once: re-arming a timer per connection and write would cost more.
void Core::sweep_later() {
  int64_t period_ns = std::clamp<int64_t>(options_.idle_timeout_ns / 4, 10'000'000, 500'000'000);
  sweep_.expires_after(std::chrono::nanoseconds(period_ns));
  sweep_.async_wait([self = shared_from_this()](error_code ec) {
    if (ec || !self->acceptor_.is_open()) return;
    int64_t now = Env::real().monotonic_ns();
    for (const auto& connection : self->connections()) {
      if (connection->deadline_ns() < now) connection->abort();
    }
    if (self->tls_) self->look_at_certificate();
    self->sweep_later();
  });
}

std::array<fs::file_time_type, 2> Core::write_times() const {
  std::error_code ignored;
  const TlsFiles& files = options_.tls->files;
  return {fs::last_write_time(files.certificate, ignored), fs::last_write_time(files.key, ignored)};
}

/// What cannot be used leaves the one before in use: files are replaced one after the other.
void Core::look_at_certificate() {
  const int64_t now = Env::real().monotonic_ns();
  if (now - tls_checked_ns_ < options_.tls->check_ns) return;
  tls_checked_ns_ = now;
  if (options_.tls->renew) {
    if (Status renewed = options_.tls->renew(); !renewed)
      log_warn("the certificate of port {} could not be renewed: {}", port, renewed.error().message);
  }
  const auto written = write_times();
  if (written == tls_written_) return;
  auto fresh = TlsContext::load(options_.tls->files);
  if (!fresh) return log_warn("port {} goes on with the certificate it has: {}", port, fresh.error().message);
  tls_ = *std::move(fresh);
  tls_written_ = written;
  log_info("port {} has a new certificate", port);
}

void Core::stop() {
  {
    std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  asio::post(acceptor_.get_executor(), [self = shared_from_this()] {
    error_code ec;
    self->acceptor_.close(ec);
    self->sweep_.cancel();
  });
  for (const auto& connection : connections()) connection->abort();
}

bool Core::add(const std::shared_ptr<Connection>& connection) {
  std::scoped_lock lock(mutex_);
  if (stopping_) return false;
  connections_.emplace(connection.get(), connection);
  return true;
}

void Core::forget(Connection* connection) {
  std::scoped_lock lock(mutex_);
  connections_.erase(connection);
  if (!accept_paused_ || stopping_) return;
  accept_paused_ = false;
  asio::post(acceptor_.get_executor(), [self = shared_from_this()] { self->accept(); });
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
    core_->start();
    for (int i = 0; i < core_->options().threads; ++i) threads_.emplace_back([io = core_->io] { run(*io); });
  }
  ~Impl() { core_->stop(); }  // run() returns when nothing is left to do; then the threads are joined

  const Core& core() const { return *core_; }

 private:
  const std::shared_ptr<Core> core_;
  std::vector<std::jthread> threads_;
};

Result<std::unique_ptr<Server>> Server::start(ServerOptions options, Router router) {
  if (options.threads < 1) return fail(Code::kInvalidArgument, "an HTTP server needs at least one thread");
  std::shared_ptr<const TlsContext> tls;
  if (options.tls) {
    TH_TRY(tls, TlsContext::load(options.tls->files));
  }
  TH_TRY(Listening listening, listen_on(options.address, options.port));
  auto core =
      std::make_shared<Core>(std::move(options), std::move(router), std::move(listening), std::move(tls));
  return std::unique_ptr<Server>(new Server(std::make_unique<Impl>(std::move(core))));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

uint16_t Server::port() const { return impl_->core().port; }
size_t Server::connections() const { return impl_->core().connections().size(); }

}  // namespace th::http
