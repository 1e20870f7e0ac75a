#include "cloud/libvirt/virt.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <chrono>
#include <future>

#include "base/units.h"

namespace th::cloud::libvirt {
namespace {

constexpr int kAliveEveryS = 5, kAliveMisses = 3;

Code code_of(int number, std::string_view message) {
  switch (number) {
    case VIR_ERR_NO_DOMAIN:
      return Code::kNotFound;
    case VIR_ERR_DOM_EXIST:
      return Code::kAlreadyExists;
    case VIR_ERR_NO_MEMORY:
      return Code::kNoCapacity;
    case VIR_ERR_AUTH_FAILED:
    case VIR_ERR_AUTH_CANCELLED:
    case VIR_ERR_AUTH_UNAVAILABLE:
    case VIR_ERR_ACCESS_DENIED:
    case VIR_ERR_OPERATION_DENIED:
      return Code::kPermissionDenied;
    case VIR_ERR_XML_ERROR:
    case VIR_ERR_XML_DETAIL:
    case VIR_ERR_CONFIG_UNSUPPORTED:
      return Code::kInvalidArgument;
    default:
      break;
  }
  return message.find("Cannot allocate memory") == message.npos ? Code::kUnavailable : Code::kNoCapacity;
}

}  // namespace

Error libvirt_error(std::string_view doing) {
  const virErrorPtr error = virGetLastError();
  std::string message = error != nullptr && error->message != nullptr ? error->message : "unknown error";
  if (message.find("keepalive") != message.npos) message += "; libvirtd gives no answer, restart it";
  return {code_of(error == nullptr ? 0 : error->code, message), fmt::format("{}: {}", doing, message)};
}

Virt::Virt(std::string uri) : uri_(std::move(uri)) {
  virInitialize();
  virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});  // it would print every error to stderr
  virEventRegisterDefaultImpl();
  // The timer wakes the loop, so that it sees that it has to end.
  timer_ = virEventAddTimeout(
      200, [](int, void*) {}, nullptr, nullptr);
  events_ = std::jthread([](const std::stop_token& stop) {
    while (!stop.stop_requested()) virEventRunDefaultImpl();
  });
}

Virt::~Virt() {
  connection_.reset();
  events_.request_stop();
  events_.join();
  virEventRemoveTimeout(timer_);
}

Result<Connection> Virt::open(int64_t timeout_ns) {
  std::scoped_lock lock(mutex_);
  if (connection_ && virConnectIsAlive(connection_.get()) == 1) return connection_;
  connection_.reset();
  // Opening has no deadline of its own: a thread that a daemon leaves hanging is left to itself.
  auto promise = std::make_shared<std::promise<Result<Connection>>>();
  auto opened = promise->get_future();
  std::thread([promise, uri = uri_] {
    const std::string doing = fmt::format("libvirt at '{}' is not reached", uri);
    if (virConnectPtr connection = virConnectOpen(uri.c_str())) {
      virConnectSetKeepAlive(connection, kAliveEveryS, kAliveMisses);
      return promise->set_value(Connection(connection, [](virConnectPtr c) { virConnectClose(c); }));
    }
    Error error = libvirt_error(doing);
    error.message += "; start libvirtd, or set cloud.uri to one that runs";
    promise->set_value(fail(std::move(error)));
  }).detach();
  if (opened.wait_for(std::chrono::nanoseconds(timeout_ns)) != std::future_status::ready) {
    return fail(Code::kDeadlineExceeded,
                fmt::format("libvirt at '{}' gives no answer; see whether libvirtd hangs", uri_));
  }
  TH_TRY(connection_, opened.get());
  return connection_;
}

Result<std::vector<Domain>> all_domains(const Connection& connection) {
  virDomainPtr* list = nullptr;
  const int count = virConnectListAllDomains(connection.get(), &list, 0);
  if (count < 0) return fail(libvirt_error("listing the domains"));
  std::vector<Domain> domains;
  for (int i = 0; i < count; ++i) domains.emplace_back(list[i]);
  free(list);
  return domains;
}

Result<Domain> find_domain(const Connection& connection, const std::string& name) {
  Domain domain(virDomainLookupByName(connection.get(), name.c_str()));
  if (!domain) return fail(libvirt_error(fmt::format("finding domain '{}'", name)));
  return domain;
}

std::string description_of(const Domain& domain) {
  char* text = virDomainGetMetadata(domain.get(), VIR_DOMAIN_METADATA_DESCRIPTION, nullptr, 0);
  if (text == nullptr) return "";
  std::string out = text;
  free(text);
  return out;
}

Status set_description(const Domain& domain, const std::string& text) {
  TH_TRY(const bool active, is_active(domain));
  const unsigned where = VIR_DOMAIN_AFFECT_CONFIG | (active ? unsigned{VIR_DOMAIN_AFFECT_LIVE} : 0u);
  if (virDomainSetMetadata(domain.get(), VIR_DOMAIN_METADATA_DESCRIPTION, text.c_str(), nullptr, nullptr,
                           where) < 0)
    return fail(libvirt_error(fmt::format("describing domain '{}'", virDomainGetName(domain.get()))));
  return {};
}

Result<bool> is_active(const Domain& domain) {
  const int active = virDomainIsActive(domain.get());
  if (active < 0)
    return fail(libvirt_error(fmt::format("looking at domain '{}'", virDomainGetName(domain.get()))));
  return active == 1;
}

Status delete_domain(const Domain& domain, std::string_view doing) {
  auto active = is_active(domain);
  if (!active) return active.error().code == Code::kNotFound ? Status() : fail(active.error());
  if (*active && virDomainDestroy(domain.get()) < 0) {
    // It may have ended by itself meanwhile.
    Error error = libvirt_error(doing);
    if (virDomainIsActive(domain.get()) == 1) return fail(std::move(error));
  }
  if (virDomainUndefineFlags(domain.get(),
                             VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA) < 0) {
    Error error = libvirt_error(doing);
    if (error.code != Code::kNotFound) return fail(std::move(error));
  }
  return {};
}

}  // namespace th::cloud::libvirt
