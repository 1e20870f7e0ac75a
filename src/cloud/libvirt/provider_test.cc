#include "cloud/libvirt/provider.h"

#include <gtest/gtest.h>
#include <libvirt/libvirt.h>
#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/files.h"
#include "base/json.h"
#include "base/text.h"
#include "base/units.h"
#include "cloud/libvirt/domain.h"
#include "cloud/libvirt/virt.h"

namespace th::cloud {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kTimeout = 20 * kSecond;

libvirt::Record a_record() {
  return {"thunderhead", "demo-0", "h1", "slice-1", "abcd", "10.0.0.100/24", 1'700'000'000'000'000'000,
          true,          true};
}

TEST(LibvirtRecord, IsReadAsItWasWritten) {
  EXPECT_EQ(libvirt::read_record(libvirt::to_text(a_record())).value(), a_record());
  for (const char* foreign : {"", "a mail server", "[]", "{\"vm\":\"a\"}", "{\"thunderhead\":1}"})
    EXPECT_EQ(libvirt::read_record(foreign).error().code, Code::kInvalidArgument) << foreign;
}

TEST(LibvirtAddresses, AreTakenLowestFirst) {
  const auto range = libvirt::parse_addresses("10.0.0.254-10.0.1.1/16").value();
  std::set<std::string> taken = {"10.0.0.255/16"};
  EXPECT_EQ(libvirt::take_address(range, taken).value(), "10.0.0.254/16");
  EXPECT_EQ(libvirt::take_address(range, taken).value(), "10.0.1.0/16");
  EXPECT_EQ(libvirt::take_address(range, taken).value(), "10.0.1.1/16");
  EXPECT_EQ(libvirt::take_address(range, taken).error().code, Code::kResourceExhausted);
  EXPECT_EQ(libvirt::mac_of("10.0.1.255/16"), "52:54:00:00:01:ff");
}

TEST(LibvirtAddresses, SayWhatIsWrong) {
  const std::pair<const char*, const char*> wrong[] = {{"10.0.0.1", "no range"},
                                                       {"10.0.0.1-10.0.0.9/31", "8 to 30"},
                                                       {"10.0.0.1-10.0.0.9/", "8 to 30"},
                                                       {"10.0.0.9-10.0.0.1/24", "before it begins"},
                                                       {"10.0.0.9-10.0.1.1/24", "more than one network"},
                                                       {"10.0.0.0-10.1.0.0/8", "over 65,536"},
                                                       {"10.0.0.256-10.0.1.1/16", "10.0.0.256"}};
  for (const auto& [text, problem] : wrong) {
    const auto parsed = libvirt::parse_addresses(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_NE(parsed.error().message.find(problem), std::string::npos) << parsed.error().message;
  }
}

TEST(LibvirtFolders, OfAVmItselfAreNotCovered) {
  for (const char* good : {"/var/lib/thunderhead/jobs", "/data", "/usr/share/texts"})
    EXPECT_TRUE(libvirt::check_shared_folder(good)) << good;
  for (const char* bad : {"data", "/", "//", "/etc", "/lib/x", "/usr", "/usr/lib/thunderhead", "/a/../etc",
                          "/a b", "/a'b", "/a\nb"})
    EXPECT_FALSE(libvirt::check_shared_folder(bad)) << bad;
}

TEST(LibvirtDomain, EscapesWhatItIsTold) {
  libvirt::DomainSpec spec;
  spec.type = "qemu", spec.name = "a", spec.description = "<&'\">", spec.bridge = "br'0",
  spec.config_disk = "/d";
  const std::string xml = libvirt::domain_xml(spec);
  EXPECT_NE(xml.find("<description>&lt;&amp;&apos;&quot;&gt;</description>"), std::string::npos) << xml;
  EXPECT_NE(xml.find("bridge='br&apos;0'"), std::string::npos) << xml;
  EXPECT_EQ(libvirt::boot_words(a_record(), "10.0.0.1", {"/jobs", "/data"}),
            "th.name=demo-0 th.address=10.0.0.100/24 th.gateway=10.0.0.1 th.mount=share0:/jobs "
            "th.mount=share1:/data");
}

/// On libvirt's own test driver, which keeps domains in this process and runs nothing. What a guest would
/// print to its console, a thread of the test writes.
class LibvirtProviderTest : public testing::Test {
 protected:
  LibvirtProviderTest() {
    std::string pattern = fs::path(testing::TempDir()) / "libvirt-XXXXXX";
    state_ = mkdtemp(pattern.data());
    fs::create_directory(state_ / "image");
    for (const char* name : {"vmlinuz", "initrd.img"}) std::ofstream(state_ / "image" / name) << "x";
    options_.state_dir = state_, options_.image = state_ / "image";
    options_.controller_url = "http://10.0.0.1:7070", options_.uri = "test:///default";
    options_.addresses = "10.0.0.100-10.0.0.102/24", options_.boot_ns = 2 * kSecond;
    open();
    guests_ = std::jthread([this](const std::stop_token& stop) {
      for (; !stop.stop_requested(); std::this_thread::sleep_for(std::chrono::milliseconds(5))) boot_guests();
    });
  }
  ~LibvirtProviderTest() override {
    guests_.request_stop();
    guests_.join();
    const auto vms = provider_->list(kTimeout).value();
    for (const VmState& vm : vms) EXPECT_TRUE(provider_->remove(vm.vm, kTimeout));
    fs::remove_all(state_);
  }

  /// Each that runs has a console, but for mute_.
  void boot_guests() {
    const auto running =
        libvirt::all_domains(std::shared_ptr<virConnect>(keeper_.get(), [](virConnectPtr) {}));
    if (!running) return;
    for (const libvirt::Domain& domain : *running) {
      const std::string name = virDomainGetName(domain.get());
      if (!name.starts_with("thunderhead-") || !libvirt::is_active(domain).value_or(false)) continue;
      const std::string vm = name.substr(name.find('-') + 1);
      const fs::path console = state_ / "libvirt" / vm / "console.log";
      if (vm != mute_ && !fs::exists(console)) std::ofstream(console) << "\nthunderhead: up\n";
    }
  }

  void open() { provider_ = make_libvirt_provider(options_).value(); }
  static CreateVms request(const std::string& token, const std::vector<std::string>& names) {
    CreateVms request;
    request.client_token = token;
    for (const std::string& name : names)
      request.vms.push_back({.vm = name, .host = "host-of-" + name, .series = "LOCAL", .gpus = 2});
    return request;
  }
  std::string refusal(const LibvirtProviderOptions& options) const {
    const auto made = make_libvirt_provider(options);
    return made ? "" : made.error().message;
  }
  /// What happens to a VM from outside: "virsh destroy".
  static void destroy(const std::string& name) {
    virConnectPtr connection = virConnectOpen("test:///default");
    virDomainPtr domain = virDomainLookupByName(connection, name.c_str());
    ASSERT_NE(domain, nullptr) << name;
    EXPECT_EQ(virDomainDestroy(domain), 0);
    virDomainFree(domain);
    virConnectClose(connection);
  }

  fs::path state_;
  LibvirtProviderOptions options_;
  std::string mute_ = "mute";
  // The driver keeps its domains as long as a connection is open.
  std::unique_ptr<virConnect, int (*)(virConnectPtr)> keeper_{virConnectOpen("test:///default"),
                                                              virConnectClose};
  std::unique_ptr<Provider> provider_;
  std::jthread guests_;
};

TEST_F(LibvirtProviderTest, MakesDomainsThatTellAllAfterARestart) {
  const auto made = provider_->create(request("t1", {"a", "b"}), kTimeout);
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ((*made)[1].vm, "b");
  EXPECT_EQ((*made)[1].phase, VmPhase::kRunning);
  EXPECT_GT((*made)[1].created_ns, 0);
  EXPECT_NE((*made)[1].detail.find("10.0.0.101/24, software emulation"), std::string::npos)
      << (*made)[1].detail;
  open();
  const auto listed = provider_->list(kTimeout).value();
  ASSERT_EQ(listed.size(), 2u) << "the driver's own domain is not ours";
  EXPECT_EQ(listed[0].vm, "a");
  EXPECT_EQ(listed[0].host, "host-of-a");
  EXPECT_EQ(listed[0].client_token, "t1");
  EXPECT_EQ(listed[0].node_token_sha256, (*made)[0].node_token_sha256);
  EXPECT_EQ(listed[0].created_ns, (*made)[0].created_ns);
}

TEST_F(LibvirtProviderTest, TheSecretIsOnTheDiskAlone) {
  const auto made = provider_->create(request("t1", {"a"}), kTimeout).value();
  const fs::path disk = state_ / "libvirt/a/node.img";
  struct stat info {};
  ASSERT_EQ(stat(disk.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  std::string text = read_file(disk).value();
  EXPECT_EQ(text.size() % 512, 0u) << "whole sectors";
  text.resize(text.find('\0'));
  const Json config = parse_json(text, "node.img").value();
  const std::string token = config["token"];
  EXPECT_EQ(sha256_hex(token), made[0].node_token_sha256);
  EXPECT_EQ(config["address"], "10.0.0.100");
  EXPECT_EQ(config["jobs_dir"], (state_ / "jobs").string());
  EXPECT_EQ(config["expect"]["gpus"], 2);
  virConnectPtr connection = virConnectOpen("test:///default");
  virDomainPtr domain = virDomainLookupByName(connection, "thunderhead-a");
  ASSERT_NE(domain, nullptr);
  char* xml = virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_SECURE);
  EXPECT_EQ(std::string(xml).find(token), std::string::npos);
  EXPECT_NE(std::string(xml).find("th.mount=share0:" + (state_ / "jobs").string()), std::string::npos) << xml;
  free(xml);
  virDomainFree(domain);
  virConnectClose(connection);
}

TEST_F(LibvirtProviderTest, TheSameTokenMakesNothingNew) {
  const auto first = provider_->create(request("t1", {"a"}), kTimeout).value();
  open();
  const auto again = provider_->create(request("t1", {"a", "b"}), kTimeout).value();
  EXPECT_EQ(again[0].node_token_sha256, first[0].node_token_sha256);
  EXPECT_EQ(again[1].phase, VmPhase::kRunning) << "what a crash left out is made";
  EXPECT_EQ(provider_->create(request("t2", {"c", "a"}), kTimeout).error().code, Code::kAlreadyExists);
  EXPECT_EQ(provider_->list(kTimeout).value().size(), 2u) << "and c is not made";
}

TEST_F(LibvirtProviderTest, AVmThatStoppedIsDeadAndStaysDead) {
  ASSERT_TRUE(provider_->create(request("t1", {"a"}), kTimeout));
  destroy("thunderhead-a");
  const VmState dead = provider_->describe("a", kTimeout).value();
  EXPECT_EQ(dead.phase, VmPhase::kDead);
  EXPECT_NE(dead.detail.find("has stopped: thunderhead: up"), std::string::npos) << dead.detail;
  EXPECT_EQ(provider_->create(request("t1", {"a"}), kTimeout).value()[0].phase, VmPhase::kDead);
  EXPECT_TRUE(provider_->remove("a", kTimeout));
  EXPECT_FALSE(fs::exists(state_ / "libvirt/a"));
  EXPECT_TRUE(provider_->remove("a", kTimeout)) << "again is harmless";
  EXPECT_EQ(provider_->describe("a", kTimeout).error().code, Code::kNotFound);
}

TEST_F(LibvirtProviderTest, AVmThatNeverBootsLeavesNothing) {
  mute_ = "b";
  options_.boot_ns = 200 * kMillisecond;
  open();
  const auto made = provider_->create(request("t1", {"a", "b"}), kTimeout);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Code::kUnavailable);
  EXPECT_NE(made.error().message.find("'b' did not come up, started 3 times: it hangs"), std::string::npos)
      << made.error().message;
  EXPECT_TRUE(provider_->list(kTimeout).value().empty()) << "all or none";
}

TEST_F(LibvirtProviderTest, AHalfMadeVmIsListedFinishedAndRemoved) {
  fs::create_directory(state_ / "libvirt/half");
  EXPECT_EQ(provider_->list(kTimeout).value().at(0).phase, VmPhase::kCreating);
  EXPECT_EQ(provider_->create(request("t1", {"half"}), kTimeout).value()[0].phase, VmPhase::kRunning);
  EXPECT_TRUE(provider_->remove("half", kTimeout));
  EXPECT_TRUE(provider_->list(kTimeout).value().empty());
}

TEST_F(LibvirtProviderTest, AddressesRunOut) {
  const auto made = provider_->create(request("t1", {"a", "b", "c", "d"}), kTimeout);
  EXPECT_EQ(made.error().code, Code::kResourceExhausted) << made.error().message;
  EXPECT_TRUE(provider_->list(kTimeout).value().empty());
}

TEST_F(LibvirtProviderTest, SaysWhatIsMissing) {
  auto options = options_;
  options.image = state_ / "nowhere";
  EXPECT_NE(refusal(options).find("nowhere/vmlinuz: no such file; build it with tools/vm_image"),
            std::string::npos)
      << refusal(options);
  options = options_, options.controller_url = "http://127.0.0.1:7070";
  EXPECT_NE(refusal(options).find("VMs cannot reach the controller at 'http://127.0.0.1:7070'"),
            std::string::npos);
  options = options_, options.share = {state_ / "no-data"};
  EXPECT_NE(refusal(options).find("no-data: no such folder"), std::string::npos) << refusal(options);
  options = options_, options.uri = "qemu+unix:///system?socket=" + (state_ / "no-socket").string();
  const auto down = make_libvirt_provider(options).value()->create(request("t1", {"a"}), kTimeout);
  EXPECT_EQ(down.error().code, Code::kUnavailable);
  EXPECT_NE(down.error().message.find("no-socket"), std::string::npos) << down.error().message;
  EXPECT_NE(down.error().message.find("start libvirtd"), std::string::npos) << down.error().message;
  fs::remove(state_ / "image/initrd.img");
  EXPECT_EQ(provider_->create(request("t1", {"a"}), kTimeout).error().code, Code::kNotFound);
}

TEST_F(LibvirtProviderTest, RefusesWhatItCannotMake) {
  EXPECT_EQ(provider_->create(request("t", {"../x"}), kTimeout).error().code, Code::kInvalidArgument);
  EXPECT_EQ(provider_->create(request("", {"a"}), kTimeout).error().code, Code::kInvalidArgument);
  CreateVms wrong = request("t", {"a"});
  wrong.vms[0].series = "ND_A100_v4";
  EXPECT_EQ(provider_->create(wrong, kTimeout).error().code, Code::kUnsatisfiable);
  EXPECT_EQ(provider_->remove("../x", kTimeout).error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace th::cloud
