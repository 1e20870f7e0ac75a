#pragma once
// VMs by libvirt: real machines on the hypervisor that a libvirt daemon keeps, booted directly from a kernel
// and an initramfs (tools/vm_image). What a VM is stands in its domain's description, so list() tells
// everything after a restart. docs/libvirt.md.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cloud/provider.h"

namespace th::cloud {

enum class Acceleration {
  kAuto,      // KVM if a guest really runs with it, which is tried once; else software
  kKvm,       // KVM or an error
  kSoftware,  // QEMU's emulation of the processor: some 20 times slower
};

struct LibvirtProviderOptions {
  std::filesystem::path state_dir;  // STATE, absolute; libvirt/ and jobs/ are made below it
  std::string controller_url;       // "http://192.168.122.1:7070": where nodes dial, reached from the VMs
  std::string authority_pem = {};   // whose certificate they take there; empty: those of the image
  std::string uri = "qemu:///system";
  std::string cluster = "thunderhead";  // domains are called CLUSTER-VM; one controller a name and libvirt
  std::filesystem::path image;          // folder with vmlinuz and initrd.img; absolute
  std::string bridge = "virbr0";        // of the hypervisor's host
  std::string network = {};             // of libvirt, in the bridge's place
  std::string addresses;     // of VMs: "192.168.122.100-192.168.122.199/24"; nobody else may use them
  std::string gateway = {};  // empty: VMs reach their own network only
  int64_t memory_bytes = int64_t{512} << 20;
  int cpus = 1;
  std::vector<std::filesystem::path> share = {};  // more folders that VMs see under the same path, absolute
  Acceleration acceleration = Acceleration::kAuto;
  std::string run_as = "nobody";  // user of the ranks
  int64_t boot_ns = 0;  // until a VM that was started must run its node; 0: 3 minutes, with KVM 30 s
};

/// A VM sees STATE/jobs and `share` under the paths that they have here (virtiofs), so for a libvirt on
/// another host (qemu+ssh://) the image, `share` and STATE lie on a file system that both have. create()
/// starts VMs one after another under software emulation, a VM that does not come up is started anew, three
/// times at most. Nothing is asked of libvirt here. Errors: kInvalidArgument (options), kNotFound (image),
/// those of making the folders.
Result<std::unique_ptr<Provider>> make_libvirt_provider(LibvirtProviderOptions options);

}  // namespace th::cloud
