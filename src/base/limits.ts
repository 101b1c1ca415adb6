/**
 * Every bound, with its why. Nothing that comes from wire, disk, environment or user is taken beyond these.
 */
export const KiB = 1024
export const MiB = 1024 * KiB
export const GiB = 1024 * MiB

/** A block: large enough that requests are rare (256 a GiB), small enough to verify and swap between peers quickly. */
export const BLOCK_BYTES_MAX = 4 * MiB
/** A shard, the unit of placement: a thousand of them hold a 256 GiB model, so holder tables stay small. */
export const SHARD_BYTES_MAX = 256 * MiB
/** A manifest holds 10,000 entries of about 100 bytes comfortably. */
export const MANIFEST_BYTES_MAX = 16 * MiB
export const MANIFEST_FILES_MAX = 10_000
/** 40 bytes a block: 16 MiB index more than a tebibyte of file. */
export const FILE_INDEX_BYTES_MAX = 16 * MiB
export const FILE_BLOCKS_MAX = 400_000
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
/** A tensor of this size or more starts its own block (DESIGN section 3). */
export const TENSOR_OWN_BLOCK_BYTES = 1 * MiB

/** The unit of O_DIRECT and of slabs. */
export const PAGE_BYTES = 4 * KiB
/** Receive slots: 24 x 4 MiB bounds a node's block memory at about 100 MiB whatever is loaded. */
export const SLOTS_DEFAULT = 24

/**
 * Payload of one data frame. With our 9-byte head and Yamux's 12 it fills one Noise record (65,519 bytes of plaintext)
 * to the byte, so no record is split in two.
 */
export const FRAME_PAYLOAD_BYTES_MAX = 65_519 - 12 - 9
/** A control message (request, answer head, inventory update). */
export const CONTROL_BYTES_MAX = 16 * KiB
/** Requests one peer may have waiting at a server; beyond it the server stops reading from that peer. */
export const SERVER_REQUESTS_PER_PEER_MAX = 256
/** Streams of one protocol from one peer. */
export const STREAMS_PER_PEER_MAX = 8
/** Bytes in flight from one peer, and over one load. */
export const PEER_BYTES_IN_FLIGHT_MAX = 64 * MiB
/** Peers a load talks to at once: more adds connections, not speed. */
export const LOAD_PEERS_MAX = 32
/** Entries of any one in-memory table about peers. */
export const PEERS_TRACKED_MAX = 10_000
/** Inventory streams a node keeps open as a server. */
export const INVENTORY_STREAMS_MAX = 1_024

/** The API's JSON bodies. */
export const API_BODY_BYTES_MAX = 1 * MiB
/** An invite: a key, and at most this many addresses. */
export const INVITE_ADDRESSES_MAX = 16
export const INVITE_BYTES_MAX = 8 * KiB
/** One line of NDJSON: the file list of a model with MANIFEST_FILES_MAX files, each with two paths of PATH_BYTES_MAX. */
export const API_LINE_BYTES_MAX = 32 * MiB
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
