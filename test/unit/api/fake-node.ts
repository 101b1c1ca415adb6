import { Emitter, ModelNotFoundError, UsageError } from '../../../src/base/index.ts'
import type { AddOptions, DrainOptions, NodeStatus, PinOptions, ReplicationProgress } from '../../../src/node/types.ts'
import type { ShardStatus } from '../../../src/replication/types.ts'

export const CID = 'bafyr4ifrppmvjkxc7ikbsa4wzpk2elc4nhor7qefkkcnc54irg75pvchmi'
export const PROGRESS: ReplicationProgress = { shards: 2, shardsDone: 1, bytesDone: 5, bytesTotal: 10, replicasMin: 1, target: 3 }

interface Events { 'replication:restored': { cid: string, ms: number } }

/** What the node is asked, and answers as these tests want it: they are about what the API makes of it. */
export class FakeNode {
  readonly events = new Emitter<Events>()
  readonly calls: unknown[] = []
  known = true
  drainComplete = false
  replicatedAfterMs = 50
  collected: Promise<void> = Promise.resolve()

  gc = async (): Promise<object> => {
    await this.collected
    return { removed: [], freedBytes: 0, leftoverBytes: 0 }
  }

  status = async (): Promise<NodeStatus> => ({
    peerId: 'p',
    version: '0',
    multiaddrs: [],
    listening: [],
    startedAt: 0,
    uptimeSeconds: 1,
    peersConnected: 2,
    models: { count: 1, complete: 1, pinned: 1, bytes: 10 },
    transfers: 0,
    storage: { heldBytes: 10, quotaBytes: undefined, volumeFreeBytes: undefined, writable: true, error: undefined, slots: { size: 1, free: 1 }, directIo: false },
    announce: { keys: 0, backlog: 0, lagMs: 0, announced: 0, failed: 0, sweptAt: undefined },
    blocksLost: 0,
    replication: {
      models: [
        { model: CID, min: 2, target: 3, max: 5, replicasMin: 1, shards: 2, deficitShards: 1, deficitBytes: 5, repairing: 1, oldestProofAgoMs: 1_000, secondsLeft: 40 },
        { model: 'let go', min: 0, target: 0, max: 0, replicasMin: 0, shards: 7, deficitShards: 0, deficitBytes: 0, repairing: 0, oldestProofAgoMs: undefined, secondsLeft: undefined }
      ],
      brake: true,
      settled: true,
      draining: false,
      donateBytes: 1_000,
      committedBytes: 10,
      pendingBytes: 3,
      pulling: 1,
      repairMs: undefined,
      durability: 0.5,
      scrub: { bytesDone: 5, bytesTotal: 10, bad: 2, lastCompletedAt: undefined, suspectSince: 1_000 },
      counters: { repairBytes: 11, repairs: 12, proofsAsked: 13, proofsFailed: 14, released: 15, messagesSent: 16, messageBytesSent: 17 }
    },
    labels: {},
    problems: []
  })

  peers = (): [] => []
  transfers = (): [] => []

  show = async (cid: string): Promise<object> => ({
    cid, files: 1, bytes: 10, presentBytes: 10, complete: true, pinned: true, published: true, keeps: true, addedAt: 1, usedAt: 1, path: '/m', fileList: [], holders: [], shards: 2, blocks: 2
  })

  shards = (cid: string): ShardStatus[] => {
    if (!this.known) throw new ModelNotFoundError(`nothing is known of ${cid}`)
    const holders: ShardStatus['holders'] = [{ peerId: 'p', state: 'proven', provenAgoMs: 1_000, labels: { zone: 'a' } }, { peerId: 'q', state: 'claimed', provenAgoMs: undefined, labels: {} }]
    return [0, 1].map(shard => ({ shard, bytes: 5, replicas: 1, repairing: shard === 1, holders }))
  }

  add = async (path: string, { replicas }: AddOptions): Promise<object> => {
    this.calls.push(['add', path, replicas])
    return { cid: CID, files: 1, bytes: 1, blocks: 1, newBytes: 1, seconds: 1, warnings: [] }
  }

  pin = async (cid: string, { replicas }: PinOptions = {}): Promise<void> => {
    this.calls.push(['pin', cid, replicas])
    if (replicas === 13) throw new UsageError('this node did not publish it')
  }

  replicated = async (cid: string, { signal, onProgress }: { signal?: AbortSignal, onProgress?: (progress: ReplicationProgress) => void }): Promise<void> => {
    this.calls.push(['replicated', cid])
    onProgress?.(PROGRESS)
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(resolve, this.replicatedAfterMs)
      signal?.addEventListener('abort', () => { clearTimeout(timer); this.calls.push('left'); reject(signal.reason as Error) }, { once: true })
    })
  }

  drain = async ({ deadlineMs, onProgress }: DrainOptions): Promise<object> => {
    this.calls.push(['drain', deadlineMs])
    onProgress?.({ shards: 2, shardsDone: 1, bytesDone: 5, bytesTotal: 10 })
    return { complete: this.drainComplete, seconds: 2, left: this.drainComplete ? [] : [{ model: CID, shard: 1, replicas: 0, target: 3 }] }
  }
}
