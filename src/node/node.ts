import {
  ModelNotFoundError, NodeStoppedError, UsageError, asError, systemClock, type AbortOptions, type Clock, type Emitter, type Logger, type ProgressOptions
} from '../base/index.ts'
import { encodeInvite, type ContentRouter, type Network } from '../discovery/index.ts'
import { parseModelCid, positionOf, type RepoName } from '../model/index.ts'
import type { Leftovers, Origin } from '../origin/index.ts'
import type { Replication } from '../replication/service.ts'
import type { ShardStatus } from '../replication/types.ts'
import { awayOf } from '../storage/index.ts'
import type { GcResult, ModelStore, RemoveResult, StoredModel, VerifyProgress } from '../storage/store.ts'
import type { Exchange } from '../transfer/types.ts'
import type { Adds } from './adds.ts'
import type { Announcer } from './announcer.ts'
import type { Descriptions } from './describe.ts'
import { knownHolders } from './holders.ts'
import type { Links } from './links.ts'
import type { Loads } from './load.ts'
import type { PeerBook } from './peer-book.ts'
import { problemsOf } from './problems.ts'
import { removeModel } from './removal.ts'
import { drainAll, policyFor, untilReplicated } from './replicate.ts'
import type { Tensors } from './tensors.ts'
import type {
  AddOptions, AddResult, DescribeOptions, DrainOptions, DrainResult, LoadOptions, LoadResult, ModelDescription, ModelDetails, ModelLink, ModelSummary, NodeEvents, NodeSettings, NodeStatus, OpenModel, PeerStatus, PinOptions, ReplicationProgress, ShoalNode, ShowOptions,
  TransferStatus, Verification, WholeFile
} from './types.ts'
import { version } from './version.ts'
import { detailsOf, fileDetails, peerStatuses, summaryOf } from './views.ts'

export interface NodeComponents {
  network: Network
  store: ModelStore
  router: ContentRouter
  exchange: Exchange
  peers: PeerBook
  loads: Loads
  adds: Adds
  descriptions: Descriptions
  tensors: Tensors
  links: Links
  announcer: Announcer
  replication: Replication
  origin: Origin | undefined
  /** Of fetches from an upstream, if there ever were any. */
  leftovers: Leftovers | undefined
  clock: Clock
  logger: Logger
}

const STOP_TIMEOUT_MS = 5_000
/** What is read again within this time counts as one use. */
const USE_AGAIN_MS = 60_000
const NO_REPLICAS = { min: 0, target: 0, max: 0 }

/** The public face of a running node: each method is one sentence over the parts; the journeys have files of their own. */
export class Node implements ShoalNode {
  readonly peerId: string
  readonly events: Emitter<NodeEvents>
  readonly #components: NodeComponents
  readonly #settings: NodeSettings
  readonly #swarmKey: Uint8Array | undefined
  readonly #startedAt: number
  readonly #startedMonotonic: number
  readonly #stopping = new AbortController()
  #stopped: Promise<void> | undefined
  #blocksLost = 0

  constructor (components: NodeComponents, init: { settings: NodeSettings, swarmKey: Uint8Array | undefined, events: Emitter<NodeEvents> }) {
    this.#components = components
    this.#settings = init.settings
    this.#swarmKey = init.swarmKey
    this.events = init.events
    this.peerId = components.network.peerId.toString()
    this.#startedAt = components.clock.now()
    this.#startedMonotonic = components.clock.monotonic()
    components.store.events.on('blocks:lost', ({ blocks, evicted }) => { if (evicted !== true) this.#blocksLost += blocks.length })
  }

  multiaddrs (): string[] {
    return this.#components.network.getMultiaddrs().map(address => address.toString())
  }

  async connect (address: string, options: AbortOptions = {}): Promise<string> {
    this.#check()
    return await this.#components.peers.connect(address, options.signal)
  }

  get origin (): Origin | undefined { return this.#components.origin }

  async add (path: string, options: AddOptions = {}): Promise<AddResult> {
    this.#check()
    return await this.#components.adds.add(path, { ...options, signal: this.#signal(options.signal) })
  }

  async load (cid: string, options: LoadOptions = {}): Promise<LoadResult> {
    const model = await this.open(cid, options)
    try {
      return await model.done
    } finally {
      model.close()
    }
  }

  async open (cid: string, options: LoadOptions = {}): Promise<OpenModel> {
    this.#check()
    const { loads, leftovers } = this.#components
    const model = await loads.open(cid, options)
    await leftovers?.instalments.isModel(model.cid)
    return model
  }

  async describe (cid: string, options: DescribeOptions = {}): Promise<ModelDescription> {
    this.#check()
    return await this.#components.descriptions.describe(cid, options)
  }

  wholeFile (text: string, path: string): WholeFile | undefined {
    this.#check()
    const { store, clock } = this.#components
    const model = store.model(parseModelCid(text).toString())
    const file = model?.files[positionOf(model.manifest.value.files, path)]
    if (model === undefined || file?.present.full !== true) return undefined
    if (clock.now() - model.usedAt > USE_AGAIN_MS) store.touchModel(model.cid).catch(() => undefined) // a store that stops just now
    return { size: file.index.size, read: async (offset, into) => { await store.readRange(file, offset, into.length, into) } }
  }

  async link (name: RepoName, cid: string): Promise<ModelLink> {
    this.#check()
    return await this.#components.links.put(name, cid)
  }

  async unlink (name: RepoName): Promise<ModelLink> {
    this.#check()
    return await this.#components.links.delete(name)
  }

  links (repo?: string): ModelLink[] {
    return repo === undefined ? this.#components.links.list() : this.#components.links.of(repo)
  }

  models (): ModelSummary[] {
    return this.#userModels().map(model => this.#summary(model))
  }

  async show (cid: string, options: ShowOptions = {}): Promise<ModelDetails> {
    this.#check()
    const { tensors, exchange, replication } = this.#components
    const model = this.#model(cid)
    const files = await fileDetails(model, tensors, { ...options, signal: this.#signal(options.signal) })
    return detailsOf(this.#summary(model), model, files, knownHolders(exchange.holders(model.cid), replication.shards(model.cid) ?? [], { self: this.peerId, bytes: model.bytes }))
  }

  async remove (cid: string): Promise<RemoveResult & { replicas?: number }> {
    this.#check()
    const result = await removeModel(this.#components, this.#model(cid, false))
    const replicas = this.#components.replication.saidOf(result.cid)?.target ?? 0
    return replicas === 0 ? result : { ...result, replicas }
  }

  async pin (cid: string, options: PinOptions = {}): Promise<void> {
    this.#check()
    const { store, replication } = this.#components
    const model = this.#model(cid)
    const policy = options.replicas === undefined ? undefined : policyFor(options.replicas, this.#settings.replication) ?? NO_REPLICAS
    if (policy !== undefined && !model.published && replication.saidOf(model.cid) === undefined) {
      throw new UsageError(`${model.cid} was not added here, and only the node that added it says how many replicas it has; pin it here without --replicas`)
    }
    await store.setPinned(model.cid, true)
    if (policy !== undefined) await replication.setPolicy(model.cid, policy)
  }

  async unpin (text: string): Promise<void> {
    this.#check()
    const { store, replication } = this.#components
    const cid = parseModelCid(text).toString()
    // Whoever asked for replicas may end them, also when the model was removed here.
    const isAsked = (replication.saidOf(cid)?.target ?? 0) > 0
    if (!isAsked || store.model(cid) !== undefined) await store.setPinned(this.#model(cid, false).cid, false)
    if (isAsked) await replication.setPolicy(cid, NO_REPLICAS)
  }

  shards (text: string): ShardStatus[] {
    this.#check()
    const cid = parseModelCid(text).toString()
    const shards = this.#components.replication.shards(cid)
    if (shards === undefined) throw new ModelNotFoundError(`this node knows nothing of ${cid}; ask one that holds it`)
    return shards
  }

  async replicated (cid: string, options: AbortOptions & ProgressOptions<ReplicationProgress> = {}): Promise<void> {
    const { replication, clock } = this.#components
    const known = parseModelCid(cid).toString()
    await untilReplicated({ clock, policy: () => replication.policyOf(known), shards: () => this.shards(known) }, { ...options, signal: this.#signal(options.signal) })
  }

  async drain (options: DrainOptions = {}): Promise<DrainResult> {
    this.#check()
    return await drainAll(this.#components, { ...options, signal: this.#signal(options.signal) })
  }

  async gc (options: { dryRun?: boolean } = {}): Promise<GcResult> {
    this.#check()
    const { store, leftovers } = this.#components
    const before = new Map(store.models().map(model => [model.cid, model]))
    const result = await store.gc(options)
    if (options.dryRun !== true) {
      for (const { cid } of result.removed) {
        const model = before.get(cid)
        if (model !== undefined) this.#components.announcer.withdraw(model)
      }
    }
    const leftoverBytes = result.leftoverBytes + (await leftovers?.gc(options.dryRun === true) ?? 0)
    return { ...result, leftoverBytes }
  }

  async verify (cid?: string, options: AbortOptions & ProgressOptions<VerifyProgress> = {}): Promise<Verification> {
    this.#check()
    const { store } = this.#components
    const chosen = cid === undefined ? undefined : this.#model(cid, false).cid
    const result = await store.verify(chosen, { ...options, signal: this.#signal(options.signal) })
    // What was withdrawn before is not looked at again, and lacks all the same.
    const lacking = store.models().filter(model => (chosen === undefined || model.cid === chosen) && !model.complete && (model.published || (model.pinned && !this.#isPartOnPurpose(model.cid))))
    return { ...result, lacking: lacking.map(model => ({ cid: model.cid, bytes: model.bytes - model.presentBytes, published: model.published, away: awayOf(model) })) }
  }

  transfers (): TransferStatus[] {
    const { loads, origin } = this.#components
    return loads.transfers().map(transfer => {
      const partOf = origin?.wholeOf(transfer.cid)
      return partOf === undefined ? transfer : { ...transfer, partOf }
    })
  }

  peers (): PeerStatus[] {
    const { network, exchange, peers } = this.#components
    return peerStatuses(network.getConnections(), exchange.peers(), peers.connected())
  }

  async status (): Promise<NodeStatus> {
    const { store, router, clock, loads, replication, origin } = this.#components
    const report = replication.report()
    const models = this.#userModels()
    const status: Omit<NodeStatus, 'problems'> = {
      peerId: this.peerId,
      version,
      multiaddrs: this.multiaddrs(),
      listening: this.#components.network.services.listeners.addresses().map(address => address.toString()),
      startedAt: this.#startedAt,
      uptimeSeconds: (clock.monotonic() - this.#startedMonotonic) / 1000,
      peersConnected: this.#components.peers.connected().length,
      models: {
        count: models.length,
        complete: models.filter(model => model.complete).length,
        pinned: models.filter(model => model.pinned).length,
        bytes: models.reduce((sum, model) => sum + model.presentBytes, 0)
      },
      transfers: loads.transfers().filter(({ resting }) => !resting).length,
      storage: await store.status(),
      announce: router.status(),
      blocksLost: this.#blocksLost,
      replication: report,
      ...(origin === undefined ? {} : { origin: origin.status() }),
      labels: this.#settings.labels
    }
    return { ...status, problems: problemsOf(status, this.#settings, this.peers().filter(peer => peer.banned), models, cid => this.#isPartOnPurpose(cid), replication.problems(report), this.#components.peers.unreached) }
  }

  invite (): string {
    return encodeInvite({ addresses: this.multiaddrs(), ...(this.#swarmKey === undefined ? {} : { swarmKey: this.#swarmKey }) })
  }

  async stop (): Promise<void> {
    this.#stopped ??= this.#stop()
    await this.#stopped
  }

  /** From the outside in: first nobody new, then open work, then the network, and at last what was written is recorded. */
  async #stop (): Promise<void> {
    const { announcer, replication, loads, adds, descriptions, exchange, router, peers, network, origin, leftovers, store, logger } = this.#components
    this.#stopping.abort(new NodeStoppedError('the node is stopping'))
    await announcer.stop()
    descriptions.stop()
    const steps: Array<[string, () => Promise<unknown>]> = [
      ['origin', async () => {
        await origin?.stop()
        await leftovers?.instalments.stop()
      }],
      ['replication', async () => { await replication.stop() }],
      ['loads', async () => { await loads.stop() }],
      ['adds', async () => { await adds.settled() }],
      ['exchange', async () => { await exchange.stop() }],
      ['peers', async () => { await peers.stop() }],
      ['router', async () => { await router.stop() }],
      ['network', async () => { await network.stop() }]
    ]
    const deadline = systemClock.monotonic() + STOP_TIMEOUT_MS - 1_000
    for (const [part, stop] of steps) {
      await within(stop(), deadline - systemClock.monotonic()).catch(error => {
        logger.warn({ part, error: asError(error).message }, 'a part did not stop cleanly')
      })
    }
    await store.stop()
  }

  /** Without what is a part of another one that is on its way. */
  #userModels (): StoredModel[] {
    const { store, leftovers, links } = this.#components
    const linked = new Set(links.list().map(({ cid }) => cid))
    return store.models().filter(({ cid, pinned, published }) => pinned || published || linked.has(cid) || leftovers?.instalments.has(cid) !== true)
  }

  #summary (model: StoredModel): ModelSummary { return summaryOf(model, this.#components.replication.keeps(model.cid)) }

  /** Throws ModelNotFoundError: that it can be loaded helps those who want to have it here. */
  #model (text: string, isWanted = true): StoredModel {
    const cid = parseModelCid(text).toString()
    const model = this.#components.store.model(cid)
    if (model === undefined) throw new ModelNotFoundError(`this node does not hold ${cid}; ${isWanted ? `load it with: shoal get ${cid}` : 'see what it holds with: shoal ls'}`)
    return model
  }

  /** Loaded now, or the swarm wants no more of it here. */
  #isPartOnPurpose (cid: string): boolean {
    const { loads, replication } = this.#components
    return loads.has(cid) || replication.keeps(cid)
  }

  #check (): void {
    if (this.#stopping.signal.aborted) throw new NodeStoppedError('the node is stopping')
  }

  #signal (given: AbortSignal | undefined): AbortSignal {
    return given === undefined ? this.#stopping.signal : AbortSignal.any([given, this.#stopping.signal])
  }
}

async function within<T> (work: Promise<T>, timeoutMs: number): Promise<T> {
  let cancel = (): void => undefined
  const late = new Promise<never>((_resolve, reject) => {
    cancel = systemClock.setTimeout(() => { reject(new Error('it took too long')) }, Math.max(100, timeoutMs))
  })
  try {
    return await Promise.race([work, late])
  } finally {
    cancel()
  }
}
