#include "reserve/policy.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto policy = th::reserve::parse_policy(text, "policy.yaml");
  if (policy) {
    TH_CHECK(policy->find_account(th::reserve::kDefaultAccount) != nullptr);
    TH_CHECK(policy->find_qos(th::reserve::kDefaultQos) != nullptr);
    TH_CHECK(policy->weights.age > 0);
  } else {
    TH_CHECK(!policy.error().message.empty());
  }
  return 0;
}
