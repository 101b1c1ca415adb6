/**
 * Every bound on what comes from wire, disk, environment or user, with its why; nothing is taken beyond these. The bound of a table that
 * only one file knows stands beside it.
 */
export const KiB = 1024
export const MiB = 1024 * KiB
export const GiB = 1024 * MiB

/** A block: large enough that requests are rare (256 a GiB), small enough to verify and swap between peers quickly. */
export const BLOCK_BYTES_MAX = 4 * MiB
/** A shard, the unit of placement: a thousand of them hold a 256 GiB model, so holder tables stay small. */
export const SHARD_BYTES_MAX = 256 * MiB
/** Models of many small files (LoRA adapters, tokenizer pieces) have 20,000; at about 130 bytes each a manifest holds them comfortably. */
export const MANIFEST_BYTES_MAX = 16 * MiB
export const MANIFEST_FILES_MAX = 32_768
/** 46 bytes a block of 4 MiB: 16 MiB index 1.3 TiB of file. */
export const FILE_INDEX_BYTES_MAX = 16 * MiB
export const FILE_BLOCKS_MAX = 400_000
/**
 * The file indexes of one model together. All are in memory while it is found, as bytes and decoded, which is 2.0 times
 * their bytes (measured: 22.6 MB for 250,000 blocks, 90 bytes each): this is some 0.13 GiB, for a model of 5 TiB.
 */
export const MODEL_INDEX_BYTES_MAX = 64 * MiB
/**
 * Files up to this size carry their git SHA-1 as well: Hugging Face clients name small files by it and large ones by SHA-256
 * (huggingface_hub, file_download.py). Larger ones would cost a third hash while they are added.
 */
export const GIT_SHA1_SIZE_MAX = 1 * MiB
/** Sizes stay exact in a double. */
export const FILE_SIZE_MAX = Number.MAX_SAFE_INTEGER
export const PATH_DEPTH_MAX = 16
/** ext4, xfs and btrfs all end a name at 255 bytes. */
export const PATH_SEGMENT_BYTES_MAX = 255
export const PATH_BYTES_MAX = 1024
/** As the reference implementation has it (safetensors crate, MAX_HEADER_SIZE). */
export const SAFETENSORS_HEADER_BYTES_MAX = 100_000_000
export const SAFETENSORS_TENSORS_MAX = 1_000_000
export const SAFETENSORS_RANK_MAX = 32
/** A name in a header, or blanks between two parts of it, which are read in one go. What its metadata says, and the padding behind it, may be longer. */
export const SAFETENSORS_NAME_BYTES_MAX = 1 * MiB
/** A tensor of this size or more starts its own block: model/chunkers.ts says why. */
export const TENSOR_OWN_BLOCK_BYTES = 1 * MiB

/** The unit of O_DIRECT and of slabs. */
export const PAGE_BYTES = 4 * KiB
/** Receive slots: 8 of 4 MiB and a page bound what a node receives into at 32 MiB, whatever is loaded. Lanes need three to six (docs/benchmarks.md). */
export const SLOTS_DEFAULT = 8

/**
 * Payload of one data frame. With our 9-byte head and Yamux's 12 it fills one Noise record (65,519 bytes of plaintext)
 * to the byte, so no record is split in two.
 */
export const FRAME_PAYLOAD_BYTES_MAX = 65_519 - 12 - 9
/** The same of a lane: with its head 256 KiB, which is 16 TLS records, and what stays in a core's cache. */
export const LANE_FRAME_PAYLOAD_BYTES_MAX = 256 * KiB - 9
/** A control message (request, answer head, inventory update). */
export const CONTROL_BYTES_MAX = 16 * KiB
/** Requests one peer may have waiting at a server; beyond it the server stops reading from that peer. */
export const SERVER_REQUESTS_PER_PEER_MAX = 256
/** Streams of one protocol from one peer. */
export const STREAMS_PER_PEER_MAX = 8
/** Bytes in flight from one peer; over one load LOAD_BYTES_IN_FLIGHT_MAX. */
export const PEER_BYTES_IN_FLIGHT_MAX = 64 * MiB
/** Peers a load talks to at once: more adds connections, not speed. */
export const LOAD_PEERS_MAX = 32
/** Entries of any one in-memory table about peers. */
export const PEERS_TRACKED_MAX = 10_000
/** Peers whose entries of libp2p's peer store are in memory, some KiB each. */
export const PEERS_REMEMBERED_MAX = 1_024
/** Inventory streams a node keeps open as a server. */
export const INVENTORY_STREAMS_MAX = 1_024

/** The API's JSON bodies. */
export const API_BODY_BYTES_MAX = 1 * MiB
/** An invite: a key, and at most this many addresses. */
export const INVITE_ADDRESSES_MAX = 16
export const INVITE_BYTES_MAX = 8 * KiB
/** One line of NDJSON: the file list of a model with MANIFEST_FILES_MAX files, each with two paths of PATH_BYTES_MAX. */
export const API_LINE_BYTES_MAX = 96 * MiB
/** A whole JSON answer; the largest lists every tensor of a model. Twice this is where V8's strings end. */
export const API_RESPONSE_BYTES_MAX = 256 * MiB
/** Open connections to the API: each reading process of a host has one or two. */
export const API_CONNECTIONS_MAX = 1_024
/** Globs of one load, and the length of each: matching them stays cheap. */
export const INCLUDE_GLOBS_MAX = 64
export const INCLUDE_GLOB_BYTES_MAX = 1_024
/** Progress lines a second to one caller: more than an eye follows is waste. */
export const PROGRESS_PER_SECOND_MAX = 10
/** A configuration file: the commented default has a few KiB. */
export const CONFIG_BYTES_MAX = 1 * MiB
/** Descriptors the store keeps open: blocks of one load go to a few files, and a process has 1,024 by default. */
export const STORE_HANDLES_MAX = 128
/** Files with unsynced blocks that are synced together; each keeps a descriptor open until then, so that no write error goes unseen. Twice as many at most. */
export const STORE_DIRTY_FILES_MAX = 96
/** Never filled by blocks: the catalog needs room to record and to delete. A hundredth of a volume smaller than 6.4 GiB. */
export const VOLUME_RESERVE_BYTES_MAX = 64 * MiB
/** Blocks whose file indexes are kept decoded, with their offsets 53 bytes each; others are decoded again when asked for. */
export const DECODED_BLOCKS_MAX = 100_000
/** The first exchange on a connection of a private swarm: a peer that does not finish it in this time has no key or no manners. */
export const SWARM_HANDSHAKE_MS = 5_000
/** Bytes that may arrive during that exchange: one read of a socket, of which at most 80 belong to it. */
export const SWARM_HANDSHAKE_BYTES_MAX = 128 * KiB
/** Streams of one connection, each way: all protocols together use some tens, a flood needs thousands. */
export const STREAMS_PER_CONNECTION_MAX = 256
/** What a stream holds for a reader that paused: twice its window, so that a full window never resets it. */
export const STREAM_READ_BUFFER_BYTES_MAX = 4 * MiB
/** What a stream holds for a peer that does not read, when the writer ignores back-pressure; then it is reset. */
export const STREAM_WRITE_BUFFER_BYTES_MAX = 8 * MiB
/** What a rate-capped link holds of bytes that arrived ahead of their time; streams' windows keep it far below. */
export const LINK_BUFFER_BYTES_MAX = 64 * MiB
/** One message of the DHT: 128 providers and 20 closer peers with 16 addresses each fit. */
export const DHT_MESSAGE_BYTES_MAX = 512 * KiB
/** Addresses of one peer that are kept or told. */
export const DHT_ADDRESSES_PER_PEER_MAX = 16
/** Providers named in one answer, taken at random from more: a find needs a handful, and asks several peers. */
export const DHT_PROVIDERS_PER_ANSWER_MAX = 128
/** Provider records kept on disk for others (about 150 bytes each), and in memory (a test's swarm). */
export const DHT_RECORDS_MAX = 8_000_000
export const DHT_RECORDS_IN_MEMORY_MAX = 2_000_000
/** Of those from one peer: it holds 8 TiB in full blocks, and three such peers still fit. Of what is left then each may have half, and leaves half. */
export const DHT_RECORDS_PER_PEER_MAX = 2_000_000
/** One entry of the DHT's datastore: a peer with its addresses, keys and tags has 1 or 2 KiB. */
export const DHT_ENTRY_BYTES_MAX = 64 * KiB
/** Peers named in answers that are not parsed again; some 2 KiB each. */
export const DHT_CONTACTS_REMEMBERED_MAX = 1_024
/** Peers considered and asked in one lookup: an honest one asks about 25. */
export const DHT_LOOKUP_CANDIDATES_MAX = 512
export const DHT_LOOKUP_ASKED_MAX = 128
/** Providers one search yields; a loader talks to 32 at once. */
export const DHT_PROVIDERS_PER_SEARCH_MAX = 2_048
/** Keys in memory while they are announced: 64 bytes each, thrice. */
export const ANNOUNCE_PAGE_KEYS = 2_048
/** Announcements on their way to one peer, about 110 bytes each: a slow one holds 64 KiB of ours, not megabytes. */
export const ANNOUNCE_WINDOW_KEYS = 256
/** Things announced at once, outside the sweep; more wait for the sweep, which is better at many. */
export const ANNOUNCE_URGENT_MAX = 64
/** Descriptors a loader keeps open in somebody else's process, which has 1,024 by default. */
export const LOADER_HANDLES_MAX = 64
/** A read of the loader looks at its signal this often. */
export const LOADER_READ_BYTES_MAX = 64 * MiB
/** Reads that wait at the daemon at a time, each a connection of the 1,024 it takes: eight ranks on a host fit in. */
export const LOADER_WAITS_MAX = 64
/** Safetensors headers a loader reads at once: their blocks are asked for together, their bytes are not in memory together. */
export const LOADER_HEADERS_AT_ONCE = 8

/**
 * Slots for serving, apart from the receiving ones so that neither side can wait for the other: 4 MiB each, touched only
 * when used. Eight readers at once fill any link; a slow one gives its slot up to whoever waits (transfer/block-server.ts).
 */
export const SERVE_SLOTS = 8
/** Requests a client keeps open with one peer: half of what a server takes, so that a server never stops reading and sees cancels at once. */
export const REQUESTS_IN_FLIGHT_MAX = SERVER_REQUESTS_PER_PEER_MAX / 2
/** Requests for what a server lacks, and cancels, that one peer may burst, and a second: an honest peer stops asking after a few dozen. */
export const SERVER_USELESS_REQUESTS_MAX = 20_000
export const SERVER_USELESS_REQUESTS_PER_SECOND = 2_000
/** Inventory streams from one peer: one for each model it loads or watches. */
export const INVENTORY_STREAMS_PER_PEER_MAX = 64
/** Bytes requested over one load: a second of 2 Gbit/s, and at most 64 blocks to hand back when it ends. */
export const LOAD_BYTES_IN_FLIGHT_MAX = 256 * MiB
/** Listeners that a newcomer to a model is told of, and addresses of each, and bytes of an address. */
export const INVENTORY_PEERS_MAX = 16
export const INVENTORY_PEER_ADDRESSES_MAX = 4
export const INVENTORY_ADDRESS_BYTES_MAX = 128
/** Peers a load remembers beside those it talks to. */
export const LOAD_PEERS_WAITING_MAX = 1_024
/** Models whose holders are remembered, and holders of each. */
export const HOLDER_MODELS_MAX = 1_024
export const HOLDERS_PER_MODEL_MAX = 256

/** One message between replicators: a state with a thousand shared models, each with a record and a dozen members. */
export const REPLICA_MESSAGE_BYTES_MAX = 1 * MiB
/** Models in one state: at least 250 bytes each, so the message's bytes end it before. */
export const REPLICA_MODELS_PER_STATE_MAX = 4_096
/** Messages of one state, each of some thirty models: far more than two nodes share. */
export const REPLICA_STATE_PARTS_MAX = 4_096
/** A model of MANIFEST_FILES_MAX files, each a shard at least, and MODEL_INDEX_BYTES_MAX of index has some 56,000 shards. */
export const REPLICA_SHARDS_MAX = 65_536
/** Peers named with one model, and with one offer: a model with more holders than that needs no more of them known. */
export const REPLICA_MEMBERS_MAX = 256
/** Publishers of one model whose records are kept: of those with the highest sequence one counts, the rest are told for others. */
export const REPLICA_POLICIES_MAX = 16
/**
 * After a loss of the ledger nothing goes before others have told what is wanted of it. Where nobody is left who could, it becomes cached
 * data after as long as a scrub takes: who means to come back has by then.
 */
export const LEDGER_REBUILD_MS_MAX = 7 * 24 * 60 * 60_000
/**
 * What one tick looks at: a shard counts for eight, and one for each claim to it; that takes some 10 ms of the event loop. What is left follows at the
 * next ticks.
 */
export const REPLICA_LOOKS_MAX = 65_536
/** Shards for which candidates are looked for in one tick: at some 30 us each, 15 ms of the event loop. The others follow at the next ones. */
export const REPLICA_CANDIDATE_LOOKS_MAX = 512
/** Shards that are fetched at once because whoever offers them says that they are last copies: as many as one may offer at once; and of one peer. */
export const REPLICA_URGENT_PULLS_MAX = 64
export const REPLICA_URGENT_PULLS_PER_PEER_MAX = 32
/** Models that were accepted and are not in the store yet, and those of one peer: a manifest comes within a second. */
export const REPLICA_FOREIGN_MODELS_MAX = 64
export const REPLICA_FOREIGN_MODELS_PER_PEER_MAX = 16
/** Models that are not here of which it is remembered what publishers said: with a dozen records each, some megabytes. */
export const REPLICA_FORMER_MODELS_MAX = 1_024
/** Policies are recorded at once so often, and a second; what comes faster is recorded together at the next tick. Each is a sync of the disk. */
export const REPLICA_POLICY_SAVES_BURST = 32
export const REPLICA_POLICY_SAVES_PER_SECOND = 4
/** A signed policy record has some 300 bytes. */
export const POLICY_BYTES_MAX = 1 * KiB
/** More replicas than that are a mirror of everything, not a policy. */
export const REPLICAS_MAX = 64
/** Labels of a node, and the length of each name and value: a path of failure domains has a handful. */
export const LABELS_MAX = 16
export const LABEL_BYTES_MAX = 64
/** Shards of one challenge: at 64 KiB of reading each, a quarter of a second of a slow disk. */
export const REPLICA_CHALLENGE_SHARDS_MAX = 256
/** Challenges of one peer that wait for the disk, and peers whose wait; those beyond are dropped, and asked again by whoever wanted them. */
export const REPLICA_PROOFS_PER_PEER_MAX = 32
export const REPLICA_PROOFS_PEERS_MAX = 256
/** Challenges that one peer is asked to answer at once: with more models in common the others wait for the answers. */
export const REPLICA_PROOFS_ASKED_MAX = 16
/** Shards that are re-hashed because somebody doubts them, in ten minutes. */
export const REPLICA_DOUBTS_MAX = 4_096
/** Answers of others that wait for this node's own disk. */
export const REPLICA_PROOFS_WAITING_MAX = 1_024
/** Messages and bytes that wait for one peer; the oldest go first, because every message is said again while it is needed. */
export const REPLICA_QUEUE_MESSAGES_MAX = 256
export const REPLICA_QUEUE_BYTES_MAX = 4 * MiB
/** Messages that came in and wait for the next turn of the replicator. */
export const REPLICA_INBOX_MAX = 4_096
/** Models that what others say in one tick names, each message one more: at some 20 us each, 10 ms of the event loop. The others follow at the next ticks. */
export const REPLICA_HEARD_MAX = 512
/** Messages and bytes one peer may send at once, and a second; beyond it this node reads slower. */
export const REPLICA_INBOUND_BURST = 1_024
export const REPLICA_INBOUND_PER_SECOND = 200
export const REPLICA_INBOUND_BYTES_BURST = 8 * MiB
export const REPLICA_INBOUND_BYTES_PER_SECOND = 1 * MiB
/** Streams of the replica protocol from one peer: one, and its successor while the old one is not known to be dead. */
export const REPLICA_STREAMS_PER_PEER_MAX = 2
/** Searches for holders at once, and waiting. */
export const REPLICA_SEARCHES_MAX = 4
export const REPLICA_SEARCHES_WAITING_MAX = 1_024
/** Providers one search tells the replicator of. */
export const REPLICA_FOUND_MAX = 64

/** A lane's ticket is good for one connection within this time: four round trips of the slowest link, and a process that is busy with forty others. */
export const LANE_TICKET_MS = 20_000
export const LANE_TICKETS_MAX = 1_024
/** One peer asks for one lane at a time; a few more for those that were cut. */
export const LANE_TICKETS_PER_PEER_MAX = 8
/** From a connection to the lane port until its ticket is shown. Strangers cost a descriptor for so long. */
export const LANE_HANDSHAKE_MS = 8_000
/** Connections in that state; beyond, the longest waiting goes. */
export const LANES_PENDING_MAX = 64
/** Send buffers of 256 KiB that are kept when nothing is sent: what two busy lanes use. */
export const LANE_SEND_BUFFERS_MAX = 8
/** Streams of one peer that ask for lanes: one at a time, and some that are just ending. */
export const LANE_ASK_STREAMS_PER_PEER_MAX = 4
/** Peers remembered to have no lane, so that each load does not try anew. */
export const LANELESS_PEERS_MAX = 1_024

/** Parts of a repository's name, as huggingface_hub has it (utils/_validators.py), and a revision: it becomes a path in a client's cache. */
export const REPO_NAME_PART_MAX = 96
export const REVISION_BYTES_MAX = 200
/** Names a node keeps; each has some 250 bytes, and all are read when it starts. */
export const LINKS_MAX = 10_000
export const LINKS_BYTES_MAX = 8 * MiB
/** Files of models whose descriptions are kept in memory, some 300 bytes each: listings and heads then cost no look-up. */
export const DESCRIBED_FILES_MAX = 100_000
/** Who nobody describes in this time is taken for gone: clients give up after 10 s (huggingface_hub, constants.py), and have their answer before. */
export const DESCRIBE_MS = 8_000
/** A month: whoever waits longer for a drain gives no deadline. */
export const DRAIN_MS_MAX = 30 * 86_400_000

/** Connections to the Hugging Face endpoint: 32 processes of a host with eight workers each, and as many again. */
export const HF_CONNECTIONS_MAX = 512
/** Requests of one connection that wait for the answer before them; clients of the Hub send none ahead. */
export const HF_PIPELINED_MAX = 8
/** One read and write of a file: a GiB then costs half the processor time that it does in pieces of 64 KiB (measured). */
export const HF_BUFFER_BYTES = 1 * MiB
/** Such buffers at once; beyond, readers get small ones, and all 512 of them another 64 MiB. */
export const HF_BUFFERS_MAX = 128
export const HF_SMALL_BUFFER_BYTES = 64 * KiB
/** The body of a request: thousands of paths. */
export const HF_BODY_BYTES_MAX = 1 * MiB
/** Entries of one page of a listing, as on the Hub. */
export const HF_PAGE_ENTRIES_MAX = 1_000
/** A small file of a client's cache: the list of a commit's files, some 250 bytes each. */
export const CACHE_FILE_BYTES_MAX = 16 * MiB

/** What an upstream may tell of one repository: some 300 bytes a file. */
export const UPSTREAM_METADATA_BYTES_MAX = 16 * MiB
/** Redirects of one request: a Hub sends to its store, a renamed repository to its new name. */
export const UPSTREAM_REDIRECTS_MAX = 5
/** A token, as it is passed on; those of the Hub have 37 characters. */
export const UPSTREAM_TOKEN_BYTES_MAX = 4 * KiB
/** Files fetched from an upstream at once: enough to fill a link, and no flood for a mirror. */
export const UPSTREAM_FILES_AT_ONCE = 4
/**
 * Models fetched from an upstream at once by one node; others wait their turn, or other nodes take them. Readers of what waits get nothing and give
 * up, and what shares a link with others comes slower, and no later than in turn all together.
 */
export const UPSTREAM_FETCHES_MAX = 8
/** Beside those, of models of up to this size: adapters, drafts and tokenizers, which are here in seconds, and whose readers do not wait for hours. */
export const UPSTREAM_SMALL_FETCHES_MAX = 4
export const UPSTREAM_SMALL_BYTES_MAX = 1 * GiB
/** Fetched first of every file, so that there is something to send to whoever waits for one: 8 minutes of 512 bytes a second. */
export const UPSTREAM_HEAD_BYTES = 256 * KiB
/** Of so many files; those of larger models are small, or wait their turn. */
export const UPSTREAM_HEADS_MAX = 256
/** Files of upstream models whose metadata is kept in memory, some 400 bytes each. */
export const UPSTREAM_FILES_KNOWN_MAX = 100_000
/** Files passed on from the upstream at once, each as slow as its reader: it holds a socket to it for as long. */
export const UPSTREAM_PASSED_MAX = 16
/** Callers who were let in to a model, and names that were looked up, each some 200 bytes. */
export const UPSTREAM_ANSWERS_KNOWN_MAX = 10_000
/** One message about who fetches what: 16 claims of some 250 bytes. */
export const ORIGIN_MESSAGE_BYTES_MAX = 16 * KiB
/** Bytes of a file that are still on their way, in one answer. */
export const ORIGIN_PEEK_BYTES_MAX = 64 * KiB
/** Claims told in one answer, and kept of one model; the best ones count, and they are few. */
export const ORIGIN_CLAIMS_MAX = 16
export const ORIGIN_CLAIMS_KEPT_MAX = 64
/** Models about which claims are kept for others. */
export const ORIGIN_KEYS_MAX = 1_024
/** Streams of this protocol from one peer: one question each. */
export const ORIGIN_STREAMS_PER_PEER_MAX = 32
/** Peers asked who fetches a model; all ask the same ones, by rank, so a few that live are enough. */
export const ORIGIN_WITNESSES = 4
/** Peers that were told what this node does about a model, and are told again when that changes: two sets of witnesses, as a node makes friends. */
export const ORIGIN_TOLD_MAX = 8
/** Models of one revision that peers named and nobody gave, remembered with how often: each costs a search before it counts. */
export const ORIGIN_MISSING_MAX = 64
/** Models of some files of a revision, published while the rest comes: each is a manifest, an announcement and 60 bytes of an answer. */
export const ORIGIN_INSTALMENTS_MAX = 64
/** Providers of a model's name that are asked in one search. */
export const ORIGIN_PROVIDERS_MAX = 32
