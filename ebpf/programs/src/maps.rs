//! The maps: what user space says, what hooks remember, what they count, what they tell.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, Queue, RingBuf},
    macros::btf_map,
};
use paddock_abi::{
    admission::{Claim, Control, Done, EVENTS_BYTES},
    counters::{MAX_SLOTS, RINGS, RingCounters, SlotCounters},
    guard::{Guard, ObjectKey, Shown, TAMPER_CELLS},
    key::{
        CgroupKey, DeviceKey, FileKey, InFlight, Observation, PathKey, PathSlot, SetUp, SlotConfig,
        SlotPlace, State, WAITING_OUTSIDE, WAITING_WITHIN,
    },
    network::{CONTACTS as SENT_TO, Contact, PEERS, PeerKey, Ports},
    path::{NAME_KEYS, NameKey, PATHS, PathNode},
    policy::{Answers, HitKey, RULESETS},
    record::Header,
};

use crate::{names::Room, oom::Decision};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Host namespaces and the self-test's switch; one entry.
#[btf_map]
pub(crate) static STATE: Array<State, 1> = Array::new();

/// Cgroup to slot. User space enters roots, mkdir inherits, rmdir deletes.
#[btf_map]
pub(crate) static CGROUP_SLOT: HashMap<CgroupKey, u32, 65536, NO_PREALLOC> = HashMap::new();

#[btf_map]
pub(crate) static SLOT_CONFIG: Array<SlotConfig, { MAX_SLOTS as usize }> = Array::new();

/// Namespace inode number to the slot that owns it; without an entry no container does.
/// Not LRU: an owner forgotten would turn a container's own namespace into a peer's.
#[btf_map]
pub(crate) static NS_OWNER: HashMap<u32, u32, 65536, NO_PREALLOC> = HashMap::new();

/// Processes in set-up, by process id.
#[btf_map]
pub(crate) static EXEMPT: HashMap<u32, SetUp, 8192, NO_PREALLOC> = HashMap::new();

#[btf_map]
pub(crate) static SLOT_PLACE: Array<SlotPlace, { MAX_SLOTS as usize }> = Array::new();

/// 1 from a cgroup's birth outside of all containers until a program runs in it.
#[btf_map]
pub(crate) static FRESH: Array<u32, { MAX_SLOTS as usize }> = Array::new();

/// Free slots that user space lays out, for cgroups born outside of all containers.
#[btf_map]
pub(crate) static SLOTS_OUTSIDE: Queue<u32, { WAITING_OUTSIDE as usize }> = Queue::new();

/// The same for those born within one.
#[btf_map]
pub(crate) static SLOTS_WITHIN: Queue<u32, { WAITING_WITHIN as usize }> = Queue::new();

/// Births that found none of them, outside and within.
#[btf_map]
pub(crate) static SLOTS_MISSED: Array<u64, 2> = Array::new();

/// Slots by path, while a cgroup that was born with one is there: its twins in other hierarchies
/// share it.
#[btf_map]
pub(crate) static PATH_SLOT: HashMap<PathKey, PathSlot, 2048, NO_PREALLOC> = HashMap::new();

/// Where a path is put together: too long for the stack.
#[btf_map]
pub(crate) static PATH: PerCpuArray<PathKey, 1> = PerCpuArray::new();

/// setns and unshare between entry and exit, by thread.
#[btf_map]
pub(crate) static IN_FLIGHT: HashMap<u64, InFlight, 8192, NO_PREALLOC> = HashMap::new();

/// Block devices by the slot that was given them.
#[btf_map]
pub(crate) static SLOT_DEVICES: HashMap<DeviceKey, u32, 8192, NO_PREALLOC> = HashMap::new();

/// Programs and sockets of the host's container runtimes.
#[btf_map]
pub(crate) static RUNTIME_FILES: HashMap<FileKey, u32, 256, NO_PREALLOC> = HashMap::new();

/// Permitted capabilities of a thread that is about to exec.
#[btf_map]
pub(crate) static BEFORE_EXEC: LruHashMap<u32, u64, 1024> = LruHashMap::new();

/// Processes already marked as OOM victims: each of their threads may be marked again.
#[btf_map]
pub(crate) static OOM_MARKED: LruHashMap<u32, u32, 1024> = LruHashMap::new();

/// What the OOM killer is about: one at a time, its lock is the machine's.
#[btf_map]
pub(crate) static OOM_DECISION: Array<Decision, 1> = Array::new();

/// The tracked cgroup that each process was last seen in, by process id.
#[btf_map]
pub(crate) static MEMBER: HashMap<u32, CgroupKey, 65536, NO_PREALLOC> = HashMap::new();

/// Processes that containers moved out of their cgroups: the slot whose they stay.
#[btf_map]
pub(crate) static LEFT: HashMap<u32, u32, 8192, NO_PREALLOC> = HashMap::new();

/// Whether there has ever been one: without, which is the rule, nobody looks. One entry.
#[btf_map]
pub(crate) static ANY_LEFT: Array<u32, 1> = Array::new();

/// What each merge of policies says.
#[btf_map]
pub(crate) static ANSWERS: Array<Answers, RULESETS> = Array::new();

/// Which of them holds for a container; 0 is none. Nobody's says whether any holds for anybody.
#[btf_map]
pub(crate) static SLOT_RULESET: Array<u32, { MAX_SLOTS as usize }> = Array::new();

/// What each of them says of peers.
#[btf_map]
pub(crate) static PEER_PORTS: LpmTrie<PeerKey, Ports, PEERS> = LpmTrie::new();

/// Peers that unconnected sockets of containers with rules about ingress sent to, and when last.
#[btf_map]
pub(crate) static CONTACTS: LruHashMap<Contact, u64, SENT_TO> = LruHashMap::new();

/// What each of them says of paths.
#[btf_map]
pub(crate) static PATH_NODES: HashMap<NameKey, PathNode, PATHS, NO_PREALLOC> = HashMap::new();

/// Where a file's names are kept.
#[btf_map]
pub(crate) static NAMES: PerCpuArray<Room, 1> = PerCpuArray::new();

/// By which names are hashed; one entry.
#[btf_map]
pub(crate) static NAME_SEED: Array<[u64; NAME_KEYS], 1> = Array::new();

/// Attempts by rule, also those that audit let through.
#[btf_map]
pub(crate) static HITS: HashMap<HitKey, u64, 16384, NO_PREALLOC> = HashMap::new();

/// Attempts that found no room there; one entry.
#[btf_map]
pub(crate) static HITS_LOST: Array<u64, 1> = Array::new();

/// When the bucket of what a slot asks for is full again, as nanoseconds since boot: the slot before
/// the number of a capability or a device. No device is of major 0.
#[btf_map]
pub(crate) static ASKED: LruHashMap<u64, u64, 4096> = LruHashMap::new();

/// How paddock guards itself; one entry.
#[btf_map]
pub(crate) static GUARD: Array<Guard, 1> = Array::new();

/// Who the agent is and where its pins are; one entry.
#[btf_map]
pub(crate) static SHOWN: Array<Shown, 1> = Array::new();

/// The kernel half's own maps, programs and links.
#[btf_map]
pub(crate) static GUARDED: HashMap<ObjectKey, u32, 4096, NO_PREALLOC> = HashMap::new();

/// What others reached for of it, by `tamper_cell`.
#[btf_map]
pub(crate) static TAMPERED: Array<u64, TAMPER_CELLS> = Array::new();

#[btf_map]
pub(crate) static SLOT_COUNTERS: Array<SlotCounters, { MAX_SLOTS as usize }> = Array::new();

#[btf_map]
pub(crate) static RING_COUNTERS: Array<RingCounters, RINGS> = Array::new();

/// Rates, and whether two generations of programs are attached; one entry.
#[btf_map]
pub(crate) static CONTROL: Array<Control, 1> = Array::new();

/// When each slot's bucket is full again, as nanoseconds since boot. Nobody's is the ring's own,
/// under pressure.
#[btf_map]
pub(crate) static BUCKETS: Array<u64, { MAX_SLOTS as usize }> = Array::new();

/// Threads whose event one of two generations has taken, and when.
#[btf_map]
pub(crate) static CLAIMS: LruHashMap<Claim, u64, 4096> = LruHashMap::new();

/// Forks, execs and exits that a program has told already.
#[btf_map]
pub(crate) static DONE: LruHashMap<Done, u8, 4096> = LruHashMap::new();

/// What the self-test's calls looked like from here, by capability.
#[btf_map]
pub(crate) static OBSERVED: Array<Observation, 22> = Array::new();

/// Escapes, their attempts, OOM kills.
#[btf_map]
pub(crate) static CRITICAL: RingBuf<Header, 262_144> = RingBuf::new();

/// The rest.
#[btf_map]
pub(crate) static EVENTS: RingBuf<Header, EVENTS_BYTES> = RingBuf::new();
