#include "cloud/azure/answers.h"

#include <gtest/gtest.h>

#include "base/units.h"
#include "cloud/azure/requests.h"
#include "cloud/azure/sets.h"

namespace th::cloud::azure {
namespace {

std::string error_json(const std::string& code, const std::string& message = "m") {
  return R"({"error":{"code":")" + code + R"(","message":")" + message + R"("}})";
}

Code code(int status, const std::string& fault, const std::string& message = "m", bool spot = false) {
  return error_of_fault(status, read_fault(error_json(fault, message)), "asking", spot).code;
}

TEST(AzureFault, CapacityQuotaAndWhatIsNotOfferedAreToldApart) {
  EXPECT_EQ(code(409, "AllocationFailed"), Code::kNoCapacity);
  EXPECT_EQ(code(0, "ZonalAllocationFailed"), Code::kNoCapacity);
  EXPECT_EQ(code(0, "OverconstrainedAllocationRequest"), Code::kNoCapacity);
  EXPECT_EQ(code(409, "SkuNotAvailable"), Code::kUnsatisfiable);
  EXPECT_EQ(code(409, "SkuNotAvailable", "m", true), Code::kNoCapacity) << "what a spot VM is told";
  EXPECT_EQ(code(409, "QuotaExceeded"), Code::kResourceExhausted);
  EXPECT_EQ(code(409, "OperationNotAllowed", "exceeding approved Cores quota"), Code::kResourceExhausted);
  EXPECT_EQ(code(409, "OperationNotAllowed", "another operation"), Code::kUnavailable);
  EXPECT_EQ(code(429, "TooManyRequests"), Code::kUnavailable);
  EXPECT_EQ(code(503, ""), Code::kUnavailable);
  EXPECT_EQ(code(403, "AuthorizationFailed"), Code::kPermissionDenied);
  EXPECT_EQ(code(404, "PlatformImageNotFound"), Code::kNotFound);
  EXPECT_EQ(code(412, "PreconditionFailed"), Code::kFailedPrecondition);
  EXPECT_EQ(code(400, "InvalidParameter"), Code::kInvalidArgument);
}

TEST(AzureFault, ReadsTheCauseInsideAndWhatOAuthSays) {
  const Fault inner = read_fault(
      R"({"error":{"code":"DeploymentFailed","message":"x","details":[{"code":"AllocationFailed","message":"no room"}]}})");
  EXPECT_EQ(inner.code, "AllocationFailed");
  EXPECT_EQ(inner.message, "no room");
  const Fault oauth = read_fault(R"({"error":"invalid_client","error_description":"AADSTS7000215"})");
  EXPECT_EQ(error_of_fault(400, oauth, "signing in").code, Code::kUnauthenticated);
  EXPECT_EQ(error_of_fault(502, read_fault("<html>"), "asking").code, Code::kUnavailable);
  EXPECT_EQ(read_fault(R"({"error":[1,2],"code":3})").code, "");
}

TEST(AzureAnswers, TimesAsTheyComeOverTheWire) {
  // date -u -d '2024-11-01T04:58:58Z' +%s
  constexpr int64_t kThen = 1'730'437'138;
  EXPECT_EQ(parse_rfc3339_ns("2024-11-01T04:58:58.0882815+00:00"), kThen * kSecond + 88'281'500);
  EXPECT_EQ(parse_rfc3339_ns("2024-11-01T06:58:58+02:00"), kThen * kSecond);
  EXPECT_EQ(parse_rfc3339_ns("2024-11-01T04:58:58Z"), kThen * kSecond);
  EXPECT_EQ(parse_http_date_ns("Fri, 01 Nov 2024 04:58:58 GMT"), kThen * kSecond);
  for (const char* bad :
       {"", "2024-11-01", "2024-13-01T04:58:58Z", "2024-11-01T04:58:58", "2024-11-01T04:58:58+1"})
    EXPECT_FALSE(parse_rfc3339_ns(bad)) << bad;
  EXPECT_FALSE(parse_http_date_ns("Fri, 01 Xyz 2024 04:58:58 GMT"));
}

TEST(AzureAnswers, OperationsAndPrices) {
  EXPECT_EQ(read_operation(R"({"status":"InProgress"})")->state, Operation::State::kUnderWay);
  EXPECT_EQ(read_operation(R"({"status":"Succeeded"})")->state, Operation::State::kSucceeded);
  const auto failed =
      read_operation(R"({"status":"Failed","error":{"code":"AllocationFailed","message":"m"}})");
  EXPECT_EQ(failed->state, Operation::State::kFailed);
  EXPECT_EQ(failed->fault.code, "AllocationFailed");
  EXPECT_FALSE(read_operation("{}"));
  const auto prices = read_prices(
      R"({"Items":[{"currencyCode":"USD","unitOfMeasure":"1 Hour","retailPrice":98.32,"meterName":"a"},
          {"currencyCode":"EUR","unitOfMeasure":"1 Hour","retailPrice":90},
          {"currencyCode":"USD","unitOfMeasure":"1 Hour","retailPrice":-1}],"NextPageLink":null})");
  ASSERT_EQ(prices->values.size(), 1u);
  EXPECT_EQ(prices->values[0].microusd_per_hour, 98'320'000);
}

Book book_of_two() { return {"c", "t", {"a", "b"}, {"h0", ""}, {}}; }

Instance instance(const std::string& id, const std::string& power, const std::string& state = "Succeeded") {
  return {id, "s_" + id, state, power, "", 100 * kSecond, 500 * kSecond};
}

TEST(AzureSets, TagsHoldTheBook) {
  Book book = book_of_two();
  const auto early = book_of(*tags_of(book));
  EXPECT_EQ(early->vms, book.vms);
  EXPECT_EQ(early->hosts, book.hosts);
  EXPECT_FALSE(early->instances);
  book.instances = {{"0", "-"}};
  EXPECT_EQ(book_of(*tags_of(book))->instances, book.instances);
  EXPECT_FALSE(book_of({{"owner", "somebody"}}));
  Book large{"c", "t", {}, {}, {}};
  for (int i = 0; i < 100; ++i)
    large.vms.push_back("slice-" + std::to_string(i)), large.hosts.push_back("su12r3h4");
  const auto tags = tags_of(large);
  ASSERT_TRUE(tags);
  for (const auto& [name, text] : *tags) EXPECT_LE(text.size(), 256u);
  EXPECT_EQ(book_of(*tags)->vms, large.vms);
  for (auto& vm : large.vms) vm += std::string(56, 'x');
  for (auto& host : large.hosts) host += std::string(55, 'x');
  EXPECT_EQ(tags_of(large).error().code, Code::kInvalidArgument) << "Azure has room for 50 tags";
}

TEST(AzureSets, StatesFollowTheInstances) {
  SetView view{{"s", "eastus", "", "Creating", 2, false, {}}, book_of_two(), {}};
  EXPECT_EQ(states_of(view, {})[0].phase, VmPhase::kCreating) << "no instance yet";
  view.instances = {instance("7", "running"), instance("12", "deallocated")};
  view.set.provisioning_state = "Succeeded";
  auto states = states_of(view, {});
  ASSERT_EQ(states.size(), 2u);
  EXPECT_EQ(states[0].phase, VmPhase::kRunning);
  EXPECT_EQ(states[1].phase, VmPhase::kDead);
  EXPECT_EQ(states[1].created_ns, 100 * kSecond);
  EXPECT_EQ(states[1].ended_ns, 500 * kSecond) << "what it is billed to";

  view.book = with_instances(view);
  view.instances = {instance("12", "running"), instance("13", "running")};
  states = states_of(view, {});
  ASSERT_EQ(states.size(), 3u);
  EXPECT_EQ(states[0].phase, VmPhase::kDead) << "instance 7 is gone";
  EXPECT_EQ(states[1].phase, VmPhase::kRunning);
  EXPECT_EQ(states[2].vm, "s_13") << "nobody asked for it";
  (*view.book.instances)[0] = "-";
  EXPECT_EQ(states_of(view, {}).size(), 2u) << "removed ones are no longer listed";
}

TEST(AzureSets, AFailedInstanceWithoutAHostCostsNothing) {
  SetView view{{"s", "eastus", "", "Failed", 1, false, {}},
               {"c", "t", {"a"}, {""}, {}},
               {instance("0", "", "Failed")}};
  const auto state = states_of(view, {})[0];
  EXPECT_EQ(state.phase, VmPhase::kDead);
  EXPECT_EQ(state.ended_ns, state.created_ns);
}

TEST(AzureSets, InstancesSortByNumber) {
  std::vector<Instance> some = {instance("10", ""), instance("9", ""), instance("0", "")};
  sort_instances(some);
  EXPECT_EQ(some[0].id + some[1].id + some[2].id, "0910");
}

}  // namespace
}  // namespace th::cloud::azure
