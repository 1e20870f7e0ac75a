#include "http/tunnel.h"

#include "http/exchange.h"

namespace th::http {

void Tunnel::join(const Tunnel& a, const Tunnel& b) {
  auto pass = [](const std::shared_ptr<Exchange>& from, const std::shared_ptr<Exchange>& to) {
    to->on_drained([from] { from->resume(); });
    from->on_gone([to] { to->close(); });
    from->on_data([to](std::string_view piece) { to->append(piece); });
  };
  pass(a.exchange_, b.exchange_);
  pass(b.exchange_, a.exchange_);
  a.exchange_->resume();
  b.exchange_->resume();
}

void Tunnel::close() const { exchange_->close(); }
bool Tunnel::alive() const { return exchange_->alive(); }

}  // namespace th::http
