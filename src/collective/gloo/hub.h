#pragma once
// The meeting's side at rank 0: lets all ranks in, passes on what they send each other, and tells everyone
// when one of them is gone.

#include <list>
#include <string>
#include <thread>

#include "base/files.h"
#include "collective/gloo/meeting.h"

namespace th::collective {

class Hub {
 public:
  /// Listens on the port of the rendezvous. Errors: as Meeting::join.
  static Result<std::unique_ptr<Hub>> open(const Rendezvous& rendezvous, const MeetingOptions& options);
  ~Hub() { stop(); }
  /// Ends its thread; connections close.
  void stop() { thread_ = {}; }

 private:
  struct Peer {
    explicit Peer(UniqueFd fd, int64_t now_ns) : socket(std::move(fd)), heard_ns(now_ns) {}
    UniqueFd socket;
    FrameReader reader{1 << 16};
    std::string out;  // not sent yet
    int64_t heard_ns;
    std::optional<Hello> hello;
    Beat beat;
    bool left = false;
  };

  Hub(UniqueFd listener, const Rendezvous& rendezvous, const MeetingOptions& options);
  void run(std::stop_token stop);
  void accept_all();
  void read(Peer& peer);
  void take(Peer& peer, const Frame& frame);
  void take_hello(Peer& peer, const Frame& frame);
  void welcome_all();
  void look_around();
  void lost(Peer& peer, const std::string& how);
  void break_group(const Error& error);
  void send_all(const Frame& frame);
  void flush();
  Peer* peer_of(int rank);

  UniqueFd listener_;
  Rendezvous rendezvous_;
  MeetingOptions options_;
  int64_t deadline_ns_;
  int64_t next_beat_ns_ = 0;
  bool welcomed_ = false;
  bool broken_ = false;
  std::list<Peer> peers_;
  std::jthread thread_;  // last: ends first
};

}  // namespace th::collective
