#pragma once
// libvirt's C API with values and errors as the project has them.

#include <libvirt/libvirt.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/result.h"

namespace th::cloud::libvirt {

struct FreeDomain {
  void operator()(virDomainPtr domain) const { virDomainFree(domain); }
};
using Domain = std::unique_ptr<virDomain, FreeDomain>;
using Connection = std::shared_ptr<virConnect>;

/// What libvirt said last on this thread, after what was being done: "starting VM 'a': ...". kNotFound (no
/// such domain), kAlreadyExists, kNoCapacity (memory), kPermissionDenied, kInvalidArgument (it does not take
/// the domain), else kUnavailable.
Error libvirt_error(std::string_view doing);

/// One connection, made when it is needed and again when it broke. Thread: safe from any.
class Virt {
 public:
  explicit Virt(std::string uri);
  ~Virt();

  /// A daemon that stands still breaks the connection after 15 s, so that calls end. Errors: kUnavailable,
  /// kPermissionDenied, kDeadlineExceeded (no answer in `timeout_ns`).
  Result<Connection> open(int64_t timeout_ns);
  const std::string& uri() const { return uri_; }

 private:
  std::string uri_;
  std::mutex mutex_;
  Connection connection_;
  int timer_ = -1;
  std::jthread events_;  // keepalive needs libvirt's event loop
};

/// Errors: those of libvirt_error.
Result<std::vector<Domain>> all_domains(const Connection& connection);
/// Errors: kNotFound, those of libvirt_error.
Result<Domain> find_domain(const Connection& connection, const std::string& name);
/// Empty when there is none.
std::string description_of(const Domain& domain);
Status set_description(const Domain& domain, const std::string& text);
/// Whether it runs. Errors: those of libvirt_error.
Result<bool> is_active(const Domain& domain);
/// Ends it and forgets it; what is gone already is a success.
Status delete_domain(const Domain& domain, std::string_view doing);

}  // namespace th::cloud::libvirt
