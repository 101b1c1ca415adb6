/**
 * The shapes of the API, once: requests are checked against them and the OpenAPI document is made from them. Answers
 * are tied to the node's types by the compiler (see routes.ts), not checked again at run time.
 */
import { isAbsolute } from 'node:path'
import { z } from '@hono/zod-openapi'
import { DRAIN_MS_MAX, INCLUDE_GLOBS_MAX, INCLUDE_GLOB_BYTES_MAX, INVITE_BYTES_MAX, PATH_BYTES_MAX, REPLICAS_MAX, REPO_NAME_PART_MAX, REVISION_BYTES_MAX } from '../base/index.ts'

/** PATH_MAX of Linux (limits.h): longer ones cannot be opened in one call anyway. */
const HOST_PATH_BYTES_MAX = 4_096
/** The longest CID this program prints has 61 characters; other bases need a few more. */
const CID_TEXT_MAX = 256
/** A day; who waits longer calls again. */
const WAIT_MS_MAX = 86_400_000

const bytes = z.int().min(0).openapi({ description: 'bytes' })
const bytesPerSecond = z.number().min(0).openapi({ description: 'bytes per second, over the last seconds' })
const milliseconds1970 = z.number().openapi({ description: 'milliseconds since 1970' })
const cid = z.string().openapi({ example: 'bafyr4ihcsvbyvd54yonr3mzc4tklpcbqd5ttrxqbnvigmoy2kbgcjmbq2u' })

export const ErrorBody = z.object({
  error: z.object({
    name: z.string().openapi({ description: 'stable; compare this' }),
    message: z.string().openapi({ description: 'what happened, to what, and what to do' }),
    kind: z.enum(['usage', 'not-found', 'verification', 'no-daemon', 'aborted', 'failed']),
    retryable: z.boolean(),
    fault: z.enum(['caller', 'peer', 'network', 'disk', 'node'])
  })
}).openapi('Error')

// Requests, with words for what is wrong, which the command line has for the same settings: they follow the name of the field.
const text = (max: number): z.ZodString => z.string({ error: orMissing('must be text') }).min(1, 'must not be empty').max(max, `must have ${max} characters at most`)
const flag = z.boolean('must be true or false')
const list = <Item extends z.ZodType>(item: Item, max: number): z.ZodArray<Item> => z.array(item, 'must be a list').max(max, `must have ${max} entries at most`)

function whole (min: number, max?: number): z.ZodInt {
  const words = `must be a whole number, ${min} ${max === undefined ? 'or more' : `to ${max}`}`
  const atLeast = z.int({ error: orMissing(words) }).min(min, words)
  return max === undefined ? atLeast : atLeast.max(max, words)
}

function orMissing (words: string): (issue: { input?: unknown }) => string {
  return ({ input }) => input === undefined ? 'is missing' : words
}

/** A misspelt key is an error, not a silent default. */
function strict<Shape extends z.ZodRawShape> (shape: Shape): z.ZodObject<Shape, z.core.$strict> {
  return z.strictObject(shape, { error: issue => issue.code === 'unrecognized_keys' ? `has ${issue.keys.map(key => JSON.stringify(key.slice(0, 64))).slice(0, 3).join(', ')}, and takes only ${Object.keys(shape).join(', ')}` : 'must be an object' })
}

const cidText = text(CID_TEXT_MAX)
export const CidParam = z.object({ cid: cidText.openapi({ param: { name: 'cid', in: 'path' }, description: 'a model CID' }) })
export const ShowQuery = strict({ tensors: z.enum(['true', 'false'], 'must be true or false').optional().openapi({ description: 'list the tensors too' }) })

const replicas = whole(0, REPLICAS_MAX)

const hostPath = text(HOST_PATH_BYTES_MAX).refine(path => isAbsolute(path) && !path.includes('\0'), 'must be an absolute path')
/** Where symbolic links may lead to: the places of one cache. */
const FOLLOW_WITHIN_MAX = 8

export const AddBody = strict({
  path: hostPath.openapi({ description: 'a file or directory as the daemon sees it' }),
  inPlace: flag.optional().openapi({ description: 'reference the files instead of copying them' }),
  follow: flag.optional().openapi({ description: 'follow symbolic links instead of refusing them' }),
  followWithin: list(hostPath, FOLLOW_WITHIN_MAX).optional().openapi({ description: 'follow those that lead to files below one of these directories, and refuse others' }),
  replicas: replicas.optional().openapi({ description: 'the target number of replicas the swarm keeps of each shard; 0: none; default: replication.target' })
}).openapi('AddRequest')

export const LoadBody = strict({
  include: list(text(INCLUDE_GLOB_BYTES_MAX), INCLUDE_GLOBS_MAX).optional().openapi({ description: 'only files whose path matches one of these globs' }),
  order: z.enum(['rarest', 'sequential'], 'must be rarest or sequential').optional(),
  onDemand: flag.optional().openapi({ description: 'fetch, and make room for, only what is waited for; unless all is here, the answer then ends when its reader closes it' }),
  providerTimeoutMs: whole(1, WAIT_MS_MAX).optional().openapi({ description: 'give up when no provider was found for this long' }),
  hold: flag.optional().openapi({ description: 'the answer goes on after `done` until its reader closes it, and the model is not evicted before that: for who takes the files' })
}).openapi('LoadRequest')

export const WaitBody = strict({
  path: text(PATH_BYTES_MAX).openapi({ description: 'the file, as the manifest names it' }),
  offset: whole(0),
  length: whole(0)
}).openapi('WaitRequest')

export const VerifyBody = strict({ cid: cidText.optional() }).openapi('VerifyRequest')
export const PinBody = strict({
  replicas: replicas.optional().openapi({ description: 'a new target number of replicas; only of a model this node published' })
}).openapi('PinRequest')
export const DrainBody = strict({
  deadlineMs: whole(1, DRAIN_MS_MAX).optional().openapi({ description: 'stop waiting after this long; the last copies go first; holders that are away are waited for only if there is time' })
}).openapi('DrainRequest')
export const GcBody = strict({ dryRun: flag.optional() }).openapi('GcRequest')
export const ConnectBody = strict({ multiaddr: text(INVITE_BYTES_MAX) }).openapi('ConnectRequest')

const repo = text(2 * REPO_NAME_PART_MAX + 1).openapi({ example: 'meta/llama-3-8b', description: 'ORG/NAME, as Hugging Face clients ask for it' })
const revision = text(REVISION_BYTES_MAX).openapi({ example: 'main', description: 'a branch or tag; default main' })
export const LinkBody = strict({ repo, revision: revision.optional(), cid: cidText }).openapi('LinkRequest')
export const LinkQuery = strict({ repo, revision: revision.optional() })

// Answers.
const summary = {
  cid,
  files: z.int(),
  bytes,
  presentBytes: bytes,
  complete: z.boolean(),
  pinned: z.boolean(),
  published: z.boolean().openapi({ description: 'added here, not loaded from the swarm' }),
  keeps: z.boolean().openapi({ description: 'stays for the swarm: promised, on its way, or the last copy known' }),
  addedAt: milliseconds1970,
  usedAt: milliseconds1970,
  path: z.string().optional().openapi({ description: 'the directory of the complete files' })
}
export const Model = z.object(summary).openapi('Model')
export const Models = z.array(Model)

const Tensor = z.object({
  name: z.string(),
  dtype: z.string(),
  shape: z.array(z.int()).openapi({ description: 'elements' }),
  offset: bytes.openapi({ description: 'bytes from the start of the file' }),
  length: bytes
}).openapi('Tensor')

const holders = z.array(z.object({ peerId: z.string(), presentBytes: bytes, complete: z.boolean() }))

const policy = { min: z.int(), target: z.int(), max: z.int() }

const ModelReplication = z.object({
  cid,
  ...policy,
  replicasMin: z.int().openapi({ description: 'fewest replicas of any shard' }),
  shards: z.int(),
  deficitShards: z.int().openapi({ description: 'shards below target' }),
  deficitBytes: bytes.openapi({ description: 'bytes of the replicas that these lack' }),
  repairing: z.int().openapi({ description: 'shards on their way to somebody' }),
  oldestProofAt: milliseconds1970.optional().openapi({ description: 'of the oldest proof that counts, milliseconds since 1970' }),
  secondsLeft: z.number().min(0).optional().openapi({ description: 'until all that is lacking is there, by the measured rate; absent when nothing is on its way, and before the first measurement' })
}).openapi('ModelReplication')

const Shard = z.object({
  id: z.int().openapi({ description: 'its number in the model: the shards of its distinct files, in manifest order' }),
  bytes,
  replicas: z.int().openapi({ description: 'live, proven, committed and not draining, the answering node included; of a shard it lacks it cannot check proofs, and counts who claims it' }),
  repairing: z.boolean().openapi({ description: 'somebody is fetching it to hold it' }),
  holders: z.array(z.object({
    peerId: z.string(),
    state: z.enum(['proven', 'claimed', 'failed', 'cached', 'draining', 'down']),
    provenAt: z.number().nullable().openapi({ description: 'milliseconds since 1970; null: never' }),
    labels: z.record(z.string(), z.string())
  }))
}).openapi('Shard')

export const ModelDetails = z.object({
  ...summary,
  fileList: z.array(z.object({
    path: z.string(),
    size: bytes,
    blocks: z.int(),
    presentBlocks: z.int(),
    sha256: z.string(),
    chunker: z.string(),
    inPlace: z.boolean(),
    away: z.string().optional().openapi({ description: 'where it was in place: it is not there now, and looked for again' }),
    tensorCount: z.int(),
    tensors: z.array(Tensor).optional()
  })),
  holders,
  shardCount: z.int(),
  shards: z.array(Shard),
  replication: ModelReplication.optional().openapi({ description: 'absent when the swarm keeps nothing for it' }),
  blocks: z.int()
}).openapi('ModelDetails')

export const AddResult = z.object({
  cid,
  files: z.int(),
  bytes,
  blocks: z.int(),
  newBytes: bytes,
  seconds: z.number(),
  warnings: z.array(z.string())
}).openapi('AddResult')

export const LoadProgress = z.object({
  phase: z.enum(['finding', 'loading', 'done']),
  bytesDone: bytes,
  bytesTotal: bytes,
  rate: bytesPerSecond,
  peers: z.int(),
  secondsLeft: z.number().optional()
}).openapi('LoadProgress')

const peerBytes = z.record(z.string(), bytes).openapi({ description: 'block bytes by peer id' })

export const LoadResult = z.object({
  cid,
  path: z.string().optional(),
  bytes,
  seconds: z.number(),
  fetchedBytes: bytes,
  reusedBytes: bytes,
  duplicateBytes: bytes,
  peers: peerBytes
}).openapi('LoadResult')

const OpenFile = z.object({
  path: z.string(),
  size: bytes,
  sha256: z.string(),
  localPath: z.string().optional().openapi({ description: 'the file on disk, sparse while incomplete' }),
  complete: z.boolean(),
  wanted: z.boolean(),
  gitSha1: z.string().optional().openapi({ description: 'what git names the content by; of small files' }),
  guard: z.object({ path: z.string(), size: bytes, mtimeMs: z.number(), ino: z.number() }).optional()
    .openapi({ description: 'of a file in place: what it must still look like; whoever reads it by itself has to compare' })
}).openapi('OpenFile')

export const VerifyResult = z.object({
  blocks: z.int(),
  bytes,
  bad: z.array(z.object({ model: z.string(), path: z.string(), block: z.int(), cid: z.string(), reason: z.string() })),
  unchecked: z.object({ blocks: z.int(), reason: z.string() }).optional().openapi({ description: 'blocks that could not be looked at, and stay as they are, with the reason of the first; absent when there are none' }),
  lacking: z.array(z.object({
    cid: z.string(),
    bytes,
    published: z.boolean(),
    away: z.object({ files: z.int(), path: z.string() }).optional().openapi({ description: 'how many of its files are in place and not there now, and where the first of them was' })
  })).openapi({ description: 'models that were added or pinned here and are not whole, with the bytes they lack' })
}).openapi('VerifyResult')

const VerifyProgress = z.object({ bytesDone: bytes, bytesTotal: bytes })
const AddProgress = z.object({ bytesDone: bytes, bytesTotal: bytes, path: z.string() })
const ReplicationProgress = z.object({
  shards: z.int(), shardsDone: z.int(), bytesDone: bytes, bytesTotal: bytes, replicasMin: z.int(), target: z.int()
})
const DrainProgress = z.object({ shards: z.int(), shardsDone: z.int(), bytesDone: bytes, bytesTotal: bytes })
const errorLine = z.object({ type: z.literal('error'), error: ErrorBody.shape.error })

/** One of these a line; the last is `done` or `error`. */
export const AddLine = z.union([
  z.object({ type: z.literal('progress'), progress: AddProgress }), z.object({ type: z.literal('done'), result: AddResult }), errorLine
]).openapi('AddLine')
export const LoadLine = z.union([
  z.object({ type: z.literal('files'), files: z.array(OpenFile), path: z.string().optional() }),
  z.object({ type: z.literal('progress'), progress: LoadProgress }), z.object({ type: z.literal('done'), result: LoadResult }), errorLine
]).openapi('LoadLine')
export const VerifyLine = z.union([
  z.object({ type: z.literal('progress'), progress: VerifyProgress }), z.object({ type: z.literal('done'), result: VerifyResult }), errorLine
]).openapi('VerifyLine')
export const ReplicatedLine = z.union([
  z.object({ type: z.literal('progress'), progress: ReplicationProgress }),
  z.object({ type: z.literal('done'), result: z.object({ cid, seconds: z.number() }) }), errorLine
]).openapi('ReplicatedLine')
export const DrainResult = z.object({
  complete: z.boolean().openapi({ description: 'every shard has its target of proven replicas elsewhere' }),
  seconds: z.number(),
  left: z.array(z.object({ model: z.string(), shard: z.int(), replicas: z.int(), target: z.int() })).openapi({ description: 'what was not handed over in time' })
}).openapi('DrainResult')
export const DrainLine = z.union([
  z.object({ type: z.literal('progress'), progress: DrainProgress }), z.object({ type: z.literal('done'), result: DrainResult }), errorLine
]).openapi('DrainLine')

export const RemoveResult = z.object({ cid, freedBytes: bytes }).openapi('RemoveResult')
export const RemovedModel = RemoveResult.extend({ replicas: z.int().optional() }).openapi('RemovedModel')
export const GcResult = z.object({ removed: z.array(RemoveResult), freedBytes: bytes, leftoverBytes: bytes }).openapi('GcResult')
export const PinResult = z.object({ cid, pinned: z.boolean(), replicas: z.int().optional() }).openapi('PinResult')
export const InviteResult = z.object({ invite: z.string() }).openapi('Invite')
export const ConnectResult = z.object({ peerId: z.string() }).openapi('ConnectResult')
export const Link = z.object({
  repo,
  revision,
  cid,
  linkedAt: milliseconds1970,
  origin: z.object({ commit: z.string(), restricted: z.boolean().openapi({ description: 'gated or private: the upstream decides for each caller' }) }).optional()
    .openapi({ description: 'of what came from the upstream; absent when a user made the link' })
}).openapi('Link')
export const Links = z.array(Link)
export const Waited = z.object({ ready: z.literal(true) }).openapi('Waited')
export const ShutdownResult = z.object({ status: z.literal('stopping'), pid: z.int() }).openapi('ShutdownResult')

export const Transfers = z.array(z.object({
  cid, startedAt: milliseconds1970, progress: LoadProgress, peers: peerBytes, callers: z.int(),
  resting: z.boolean().openapi({ description: 'all that was asked for so far is here: its callers have it open' }),
  partOf: z.string().optional().openapi({ description: 'ORG/NAME: it is some files of this model, which another node is still fetching from the upstream' })
}).openapi('Transfer'))

export const Peers = z.array(z.object({
  peerId: z.string(),
  multiaddrs: z.array(z.string()),
  connected: z.boolean(),
  direction: z.enum(['inbound', 'outbound']).optional(),
  transport: z.enum(['lane', 'stream']).optional(),
  receiveRate: bytesPerSecond,
  sendRate: bytesPerSecond,
  receivedBytes: bytes,
  sentBytes: bytes,
  score: z.number().openapi({ description: '0 (useless) to 1 (perfect)' }),
  banned: z.boolean(),
  banReason: z.string().optional(),
  banSecondsLeft: z.number().optional(),
  latencyMs: z.number().optional()
}).openapi('Peer'))

const Replication = z.object({
  models: z.array(ModelReplication),
  brake: z.boolean().openapi({ description: 'too many peers vanished at once: only last copies are repaired, nothing is trimmed' }),
  settled: z.boolean().openapi({ description: 'the view has been stable since the start' }),
  draining: z.boolean(),
  donateBytes: bytes.openapi({ description: 'space given to the swarm' }),
  committedBytes: bytes.openapi({ description: 'bytes of shards this node promised to keep' }),
  pendingBytes: bytes.openapi({ description: 'bytes of accepted shards on their way here' }),
  pulling: z.int().openapi({ description: 'shards being fetched to be held here' }),
  repairMs: z.number().optional().openapi({ description: 'median milliseconds from below target to target, of the last repairs' }),
  durability: z.number().min(0).max(1).optional().openapi({ description: 'estimated probability that no shard of a pinned model is lost within a year' }),
  scrub: z.object({
    bytesDone: bytes,
    bytesTotal: bytes,
    bad: z.int(),
    lastCompletedAt: milliseconds1970.optional(),
    suspectSince: milliseconds1970.optional().openapi({ description: 'several blocks went bad in one pass: the volume is drained' })
  }),
  counters: z.object({
    repairBytes: bytes,
    repairs: z.int(),
    proofsAsked: z.int(),
    proofsFailed: z.int(),
    released: z.int(),
    messagesSent: z.int(),
    messageBytesSent: bytes
  }).openapi({ description: 'since the node started' })
}).openapi('Replication')

const OriginFetch = z.object({
  repo: z.string(),
  commit: z.string().openapi({ description: 'what the upstream names it by' }),
  phase: z.enum(['asking', 'waiting', 'fetching', 'publishing']).openapi({ description: 'asking: who has it; waiting: a peer fetches it; fetching: this node does; publishing: it is being cut into blocks' }),
  peerId: z.string().optional().openapi({ description: 'the peer that fetches it' }),
  startedAt: milliseconds1970,
  bytesDone: bytes,
  bytesTotal: bytes
}).openapi('OriginFetch')

const Origin = z.object({
  upstream: z.string(),
  fetches: z.array(OriginFetch),
  counters: z.object({
    requests: z.object({ ok: z.int(), refused: z.int(), busy: z.int(), failed: z.int() }).openapi({ description: 'to the upstream, by what became of them' }),
    bytes: bytes.openapi({ description: 'received from it' }),
    fetched: z.int().openapi({ description: 'models fetched here and published' }),
    failed: z.int(),
    shared: z.int().openapi({ description: 'models that came from the swarm instead' })
  }).openapi({ description: 'since the node started' })
}).openapi('Origin')

export const Status = z.object({
  peerId: z.string(),
  version: z.string(),
  multiaddrs: z.array(z.string()).openapi({ description: 'as others are told' }),
  listening: z.array(z.string()),
  startedAt: milliseconds1970,
  uptimeSeconds: z.number(),
  peersConnected: z.int(),
  models: z.object({ count: z.int(), complete: z.int(), pinned: z.int(), bytes }),
  transfers: z.int(),
  storage: z.object({
    heldBytes: bytes,
    quotaBytes: bytes.optional(),
    volumeFreeBytes: bytes.optional(),
    writable: z.boolean(),
    error: z.string().optional(),
    slots: z.object({ size: z.int(), free: z.int() }),
    directIo: z.boolean()
  }),
  announce: z.object({
    keys: z.int(),
    backlog: z.int(),
    lagMs: z.number(),
    announced: z.int(),
    failed: z.int(),
    sweptAt: milliseconds1970.optional()
  }),
  blocksLost: z.int().openapi({ description: 'found bad or gone since the node started' }),
  replication: Replication,
  origin: Origin.optional().openapi({ description: 'of hf.upstream; absent without it' }),
  labels: z.record(z.string(), z.string()),
  problems: z.array(z.string()).openapi({ description: 'what an operator should look at, most serious first' })
}).openapi('Status')
