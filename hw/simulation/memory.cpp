// Memory of the test bench: a mapped file behind AXI4 channels, one call per port and clock edge.
//
// Timing without stalls: an address accepted in cycle t gives its first beat in cycle t + latency,
// or as soon as earlier beats have left the channel; the last beat of a written burst in cycle t
// gives its response in t + latency. Data are read when the address is accepted and written when
// the response is given, so that a master that does not wait for responses reads old data.
//
// Plusargs: memory=PATH, latency=CYCLES, latency_N=CYCLES (of port N), stall_percent=P,
// stall_seed=S. With P > 0 each ready is low, and each response is held back, in P of 100 cycles.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "svdpi.h"
#include "verilated.h"

namespace {

constexpr uint64_t BOUNDARY = 4096;

[[noreturn]] void fail(const std::string &sentence) {
    std::fflush(stdout);
    VL_FATAL_MT("memory.cpp", 0, "", sentence.c_str());
    std::abort();
}

std::string plusarg(const std::string &name, const std::string &absent) {
    const std::string found =
        Verilated::threadContextp()->commandArgsPlusMatch((name + "=").c_str());
    return found.empty() ? absent : found.substr(name.size() + 2);
}

int64_t number(const std::string &name, int64_t absent) {
    const std::string text = plusarg(name, "");
    if (text.empty()) return absent;
    char *end = nullptr;
    const int64_t value = std::strtoll(text.c_str(), &end, 10);
    if (*end) fail("plusarg " + name + " is '" + text + "'; give a whole number.");
    return value;
}

struct Memory {
    uint8_t *data = nullptr;
    uint64_t size = 0;

    Memory() {
        const std::string path = plusarg("memory", "");
        if (path.empty()) fail("no memory image is given; add +memory=PATH.");
        const int file = ::open(path.c_str(), O_RDWR);
        struct stat facts;
        if (file < 0 || ::fstat(file, &facts) != 0)
            fail("cannot open memory image " + path + ": " + std::strerror(errno) + ".");
        size = static_cast<uint64_t>(facts.st_size);
        void *place = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (place == MAP_FAILED)
            fail("cannot map memory image " + path + ": " + std::strerror(errno) + ".");
        ::close(file);
        data = static_cast<uint8_t *>(place);
    }
};

Memory &memory() {
    static Memory one;
    return one;
}

struct Burst {
    uint64_t address = 0;
    int beats = 0;
    int64_t due = 0;
    std::vector<uint8_t> data, enabled;  // a read burst's bytes; a written one's, as they come
};

struct Beat {
    std::vector<uint8_t> data, enabled;
    bool last = false;
};

// What a master shows on a channel while it waits must not change.
struct Held {
    bool waiting = false;
    std::vector<uint8_t> shown;

    void check(int port, const char *channel, bool valid, bool ready,
               const std::vector<uint8_t> &now) {
        if (waiting && (!valid || now != shown))
            fail("memory port " + std::to_string(port) + ": " + channel +
                 " changed or lost its valid before it was accepted.");
        waiting = valid && !ready;
        if (waiting) shown = now;
    }
};

struct Port {
    int index = 0;
    int bytes = 0;
    int64_t now = 0;  // the cycle that ends with this edge
    int64_t latency = 1;
    int64_t stall_percent = 0;
    std::mt19937 random;
    std::deque<Burst> bursts;     // accepted addresses
    std::deque<Beat> beats;       // accepted before their address
    std::deque<Burst> responses;  // written bursts without their response
    int beat = 0;                 // of the first burst
    bool address_ready = true, data_ready = true, valid = false;
    Held address_held, data_held;

    Port(int index, int bytes) : index(index), bytes(bytes) {
        latency = number("latency_" + std::to_string(index), number("latency", 1));
        if (latency < 1) fail("a memory latency is below 1 cycle; RTL needs at least 1.");
        stall_percent = number("stall_percent", 0);
        random.seed(static_cast<uint32_t>(number("stall_seed", 0) * 64 + index));
    }

    bool stalled() { return stall_percent && static_cast<int64_t>(random() % 100) < stall_percent; }

    std::string name(const Burst &burst, const char *what) const {
        return std::string(what) + " of " + std::to_string(burst.beats * bytes) +
               " bytes at address " + std::to_string(burst.address) + " by memory port " +
               std::to_string(index);
    }

    Burst accept(uint64_t address, int length, const char *what) const {
        Burst burst;
        burst.address = address;
        burst.beats = length + 1;
        const uint64_t size = static_cast<uint64_t>(burst.beats) * bytes;
        if (address % bytes) fail(name(burst, what) + " is not aligned to its beats.");
        if (address % BOUNDARY + size > BOUNDARY && size > static_cast<uint64_t>(bytes))
            fail(name(burst, what) + " crosses a boundary of 4096 bytes.");
        if (address + size > memory().size)
            fail(name(burst, what) + " is outside the memory of " +
                 std::to_string(memory().size) + " bytes.");
        return burst;
    }

    void check_address(const char *channel, bool valid, uint64_t address, int length) {
        std::vector<uint8_t> shown(sizeof address + sizeof length);
        std::memcpy(shown.data(), &address, sizeof address);
        std::memcpy(shown.data() + sizeof address, &length, sizeof length);
        address_held.check(index, channel, valid, address_ready, shown);
    }
};

Port &port_of(int index, int bytes) {
    static std::map<int, Port> ports;
    return ports.try_emplace(index, index, bytes).first->second;
}

}  // namespace

// Each function takes what the master drove in the cycle that ends and gives what the memory
// drives in the next one.
extern "C" {

void signmask_memory_read(int index, int bytes, svBit arvalid, int64_t araddr, int arlen,
                          svBit rready, svBit *arready, svBit *rvalid, svBit *rlast,
                          svBitVecVal *rdata) {
    Port &port = port_of(index, bytes);
    port.check_address("AR", arvalid, static_cast<uint64_t>(araddr), arlen);
    if (arvalid && port.address_ready) {
        Burst burst = port.accept(static_cast<uint64_t>(araddr), arlen, "read");
        const uint8_t *from = memory().data + burst.address;
        burst.data.assign(from, from + static_cast<uint64_t>(burst.beats) * bytes);
        burst.due = port.now + port.latency;
        port.bursts.push_back(std::move(burst));
    }
    bool fresh = !port.valid;
    if (port.valid && rready) {
        fresh = true;
        if (++port.beat == port.bursts.front().beats) {
            port.bursts.pop_front();
            port.beat = 0;
        }
    }
    ++port.now;
    if (fresh) {
        const bool due = !port.bursts.empty() && port.bursts.front().due <= port.now;
        port.valid = due && !port.stalled();
    }
    if (port.valid)
        std::memcpy(rdata, port.bursts.front().data.data() + port.beat * bytes, bytes);
    else
        std::memset(rdata, 0, bytes);
    port.address_ready = !port.stalled();
    *arready = port.address_ready;
    *rvalid = port.valid;
    *rlast = port.valid && port.beat + 1 == port.bursts.front().beats;
}

void signmask_memory_write(int index, int bytes, svBit awvalid, int64_t awaddr, int awlen,
                           svBit wvalid, const svBitVecVal *wdata, const svBitVecVal *wstrb,
                           svBit wlast, svBit bready, svBit *awready, svBit *wready,
                           svBit *bvalid) {
    Port &port = port_of(index, bytes);
    port.check_address("AW", awvalid, static_cast<uint64_t>(awaddr), awlen);
    const auto *data = reinterpret_cast<const uint8_t *>(wdata);
    if (wvalid || port.data_held.waiting) {
        std::vector<uint8_t> shown(data, data + bytes);
        const auto *strobes = reinterpret_cast<const uint8_t *>(wstrb);
        shown.insert(shown.end(), strobes, strobes + (bytes + 7) / 8);
        shown.push_back(wlast);
        port.data_held.check(index, "W", wvalid, port.data_ready, shown);
    }
    if (awvalid && port.address_ready)
        port.bursts.push_back(port.accept(static_cast<uint64_t>(awaddr), awlen, "write"));
    if (wvalid && port.data_ready) {
        if (port.bursts.empty() && !awvalid)
            fail("memory port " + std::to_string(index) + ": data on W come before their AW.");
        Beat beat;
        beat.data.assign(data, data + bytes);
        for (int i = 0; i < bytes; ++i) beat.enabled.push_back(wstrb[i / 32] >> (i % 32) & 1);
        beat.last = wlast;
        port.beats.push_back(std::move(beat));
    }
    for (; !port.bursts.empty() && !port.beats.empty(); port.beats.pop_front()) {
        Burst &burst = port.bursts.front();
        const Beat &beat = port.beats.front();
        burst.data.insert(burst.data.end(), beat.data.begin(), beat.data.end());
        burst.enabled.insert(burst.enabled.end(), beat.enabled.begin(), beat.enabled.end());
        const bool last = ++port.beat == burst.beats;
        if (last != beat.last)
            fail(port.name(burst, "write") + " has last at another beat than its length says.");
        if (last) {
            burst.due = port.now + port.latency;
            port.responses.push_back(std::move(burst));
            port.bursts.pop_front();
            port.beat = 0;
        }
    }
    bool fresh = !port.valid;
    if (port.valid && bready) {
        fresh = true;
        port.responses.pop_front();
    }
    ++port.now;
    if (fresh) {
        const bool due = !port.responses.empty() && port.responses.front().due <= port.now;
        port.valid = due && !port.stalled();
        if (port.valid) {
            const Burst &burst = port.responses.front();
            uint8_t *to = memory().data + burst.address;
            for (size_t i = 0; i < burst.data.size(); ++i)
                if (burst.enabled[i]) to[i] = burst.data[i];
        }
    }
    port.address_ready = !port.stalled();
    port.data_ready = !port.stalled();
    *awready = port.address_ready;
    *wready = port.data_ready;
    *bvalid = port.valid;
}

}  // extern "C"
