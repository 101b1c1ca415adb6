import type { Libp2p, PrivateKey } from '@libp2p/interface'
import { ModelNotFoundError, REPLICA_HEARD_MAX, REPLICA_INBOX_MAX, asError, type Clock, type Logger, type Random } from '../base/index.ts'
import type { ContentRouter, Provider } from '../discovery/index.ts'
import type { ModelStore } from '../storage/store.ts'
import type { RateWindow } from '../transfer/index.ts'
import { DiskSpace } from './disk-space.ts'
import { Prover } from './digest.ts'
import { durability } from './durability.ts'
import { Ledger } from './ledger.ts'
import { missingBytes, type ShardsByModel } from './model-shards.ts'
import { PolicyReader, signPolicy } from './policy-record.ts'
import { ReplicaProtocol } from './protocol.ts'
import { Pulls, type PullShard } from './pulls.ts'
import { Replicator } from './replicator.ts'
import { Scrubber } from './scrubber.ts'
import { Searches } from './searches.ts'
import { StoreWatch } from './store-watch.ts'
import { SwarmCache } from './swarm-cache.ts'
import { Tally } from './tally.ts'
import { Trouble } from './trouble.ts'
import type { DrainStatus, Policy, ReplicaMessage, ReplicaPorts, ReplicationEvent, ReplicationReport, ReplicationSettings, ShardStatus } from './types.ts'

export interface ReplicationComponents {
  network: Libp2p
  store: ModelStore
  router: ContentRouter
  clock: Clock
  random: Random
  logger: Logger
  /** The node's identity: signs what it publishes. */
  privateKey: PrivateKey
  /** Shared with who fetches them: numbering costs a hash of every name. */
  shards: ShardsByModel
  pullShard: PullShard
  learn: (provider: Provider) => Promise<void>
  isBanned: (peerId: string) => boolean
  /** Told of everything that happens; must not call back. */
  noted: (event: ReplicationEvent) => void
}

export interface ReplicationInit {
  settings: ReplicationSettings
  labels: Record<string, string>
  /** Caps on fetching by time of day. */
  backgroundRates?: RateWindow[]
  /** Undefined: in memory. */
  ledgerFile: string | undefined
}

const TICK_MS = 1_000
/** After something happened; what happens within it is looked at together. */
const SOON_MS = 25
/** Of a model of many thousand shards a tick takes some milliseconds; while something happens all the time, ticks take a tenth of it at most. */
const TICK_SHARE = 0.1
/** A watched peer is pinged at least this often, and more often where it would be suspect earlier. */
const PING_MS = 5_000
const LOOK_FOR_TROUBLE_MS = 10_000
const LEDGER_LOST = 'replication.sqlite was lost or damaged, and with it what this node promised to keep: of some models nobody has told yet what is wanted, and nothing of these is evicted until somebody does; ' +
  'connect the node to others that hold them, or remove them with shoal rm'
const SUSPECT = 'the data volume is suspect: several blocks went bad in one scrub, so this node takes nothing more and hands over what it holds; check or replace the disk, then start the node again. ' +
  'It re-hashes all it has at once, and is trusted again when nothing is bad'

/**
 * The replicator in a node: gives it the network, the disk and the time. Everything that happens only leaves a note and
 * asks for a tick; the tick tells the replicator what the store has, what was said, and lets it act.
 */
export class Replication {
  readonly #components: ReplicationComponents
  readonly #init: ReplicationInit
  readonly #ledger: Ledger
  readonly #replicator: Replicator
  readonly #protocol: ReplicaProtocol
  readonly #shards: ShardsByModel
  readonly #prover: Prover
  readonly #pulls: Pulls
  readonly #searches: Searches
  readonly #scrubber: Scrubber
  readonly #space: DiskSpace
  readonly #tally = new Tally()
  readonly #trouble = new Trouble()
  readonly #policies = new PolicyReader()
  readonly #watch: StoreWatch
  readonly #cache: SwarmCache
  /** What others said, and answers to what was asked for, in order. */
  #inbox: Array<{ weight: number, work: (now: number) => void }> = []
  #cancelTick: () => void = () => undefined
  #soon = false
  #tickMs = 0
  #running = false
  #lookedAt = -Infinity
  #drainAsked = false
  #inHaste = false
  #isRebuilding: boolean
  /** Until the last policy is in force: each is to be newer than the one before it. */
  #policySet: Promise<void> = Promise.resolve()

  /** Throws StoreVersionError, and what SQLite throws. */
  constructor (components: ReplicationComponents, init: ReplicationInit) {
    const { network, store, router, clock, random, logger, learn, isBanned, pullShard } = components
    const { settings, labels } = init
    this.#components = components
    this.#init = init
    this.#shards = components.shards
    const ledger = this.#ledger = new Ledger(init.ledgerFile, logger)
    // With models from before it a ledger that is new is one that was lost.
    if (ledger.isNew) ledger.lostAt = init.ledgerFile !== undefined && store.models().length > 0 ? clock.now() : undefined
    this.#space = new DiskSpace({ store, clock, logger, isKept: cid => this.#watch.isKept(cid), spareBytes: () => this.#cache.spareBytes(cid => this.#watch.isKept(cid)) })
    this.#prover = new Prover({ store, shards: this.#shards, logger })
    const pullWithin: PullShard = async (job, context) => {
      await this.#cache.fit()
      const before = this.#cache.presentBytes(job.model, job.shard)
      try {
        return await pullShard(job, context)
      } finally {
        this.#cache.ended(job.model, job.shard, before)
      }
    }
    this.#pulls = new Pulls({ clock, logger, pullShard: pullWithin, backgroundRates: init.backgroundRates }, settings.repairBytesPerSecond, ({ model, shard }, ok, bytes) => {
      if (ok) this.#tally.pulled(bytes)
      this.#later(now => { this.#replicator.pulled(model, shard, ok, now) })
    })
    this.#searches = new Searches({ network, router, clock, logger, learn }, (model, peerIds) => { this.#later(now => { this.#replicator.found(model, peerIds, now) }) })
    this.#scrubber = new Scrubber({
      store,
      clock,
      random,
      logger,
      ledger
    }, { periodMs: settings.scrubPeriodMs, suspectBlocks: settings.scrubSuspectBlocks })
    this.#protocol = new ReplicaProtocol({ network, clock, random, logger, isBanned }, { pingMs: Math.min(PING_MS, settings.suspectMs / 3) }, (from, message) => { this.#received(from, message) })
    this.#replicator = new Replicator({
      self: network.peerId.toString(),
      labels,
      settings,
      random,
      ports: this.#ports(),
      commitments: ledger.commitments(),
      policies: ledger.policies().map(({ bytes }) => this.#policies.read(bytes)).filter(record => record !== undefined),
      ledgerLostMs: ledger.lostAt === undefined ? undefined : Math.max(0, clock.now() - ledger.lostAt)
    })
    this.#isRebuilding = ledger.lostAt !== undefined
    this.#watch = new StoreWatch({ store, shards: this.#shards, replicator: this.#replicator })
    this.#cache = new SwarmCache({ store, shards: this.#shards, ledger, logger, replicator: this.#replicator }, settings.donateBytes)
  }

  async start (): Promise<void> {
    const { clock } = this.#components
    await this.#space.refresh()
    this.#watch.start(() => { this.#tickSoon() })
    this.#running = true
    this.#watch.look(clock.monotonic())
    this.#watch.keepPromised()
    await this.#protocol.start()
    this.#replicator.start(clock.monotonic())
    this.#scrubber.start()
    this.#schedule(SOON_MS)
  }

  /** Says that this node means to come back, then ends what is open. */
  async stop (): Promise<void> {
    if (this.#running) this.#replicator.leave(this.#components.clock.monotonic())
    this.#running = false
    this.#cancelTick()
    this.#watch.stop()
    await Promise.all([this.#protocol.stop(), this.#pulls.stop(), this.#searches.stop(), this.#scrubber.stop(), this.#prover.stop()])
    this.#ledger[Symbol.dispose]()
  }

  /** Signs and spreads how many replicas a model is to have; one after the other. Durable when it resolves. Throws ModelNotFoundError when nothing is known of it any more. */
  async setPolicy (model: string, policy: Policy): Promise<void> {
    const turn = this.#policySet.then(async () => { await this.#setPolicy(model, policy) })
    this.#policySet = turn.catch(() => undefined) // whoever asked for it has the error
    await turn
  }

  async #setPolicy (model: string, policy: Policy): Promise<void> {
    const { privateKey, clock } = this.#components
    this.#watch.look(clock.monotonic()) // it may have been added this moment
    for (let isTaken = false; !isTaken;) {
      if (this.#replicator.policyOf(model) === undefined) throw new ModelNotFoundError(`this node knows nothing of ${model} any more, so nobody can be told; load it first: shoal get ${model}`)
      const record = await signPolicy(privateKey, { model, ...policy, sequence: this.#replicator.nextSequence(model, Math.floor(clock.now() / 1_000)) })
      // While it was signed the model may have gone, or others may have told what this node said before its ledger was lost.
      isTaken = this.#replicator.setPolicy(record, clock.monotonic())
    }
    this.#watch.keepPromised()
    this.#tickSoon()
  }

  policyOf (model: string): Policy | undefined { return this.#replicator.policyOf(model) }
  /** What this node itself said last, also of a model that is not here any more. */
  saidOf (model: string): Policy | undefined { return this.#replicator.saidOf(model) }
  keeps (model: string): boolean { return this.#replicator.keeps(model) }
  shards (model: string): ShardStatus[] | undefined { return this.#replicator.shards(model, this.#components.clock.monotonic()) }

  /** With a deadline that leaves no time for it, nobody who is away is waited for. */
  drain (deadlineMs = Infinity): void {
    this.#drainAsked = true
    this.#inHaste ||= deadlineMs < 2 * this.#init.settings.graceDefaultMs
    this.#replicator.drain(true, this.#components.clock.monotonic(), this.#inHaste)
    this.#tickSoon()
  }

  /** It takes nothing new, and its copies do not count. */
  get draining (): boolean { return this.#replicator.draining }

  drainStatus (): DrainStatus { return this.#replicator.drainStatus(this.#components.clock.monotonic()) }

  report (): ReplicationReport {
    const { settings } = this.#init
    const replicator = this.#replicator
    const now = this.#components.clock.monotonic()
    this.#measure(now)
    const models = replicator.models(now)
    const { repairMs } = this.#tally
    return {
      models,
      brake: replicator.brake,
      settled: replicator.settled,
      draining: replicator.draining,
      donateBytes: settings.donateBytes,
      committedBytes: replicator.committedBytes,
      pendingBytes: replicator.pendingBytes,
      pulling: this.#pulls.running,
      repairMs,
      durability: repairMs === undefined ? undefined : durability({ models, repairMs }),
      scrub: this.#scrubber.status(),
      counters: { ...this.#tally.counters(), messagesSent: this.#protocol.messagesSent, messageBytesSent: this.#protocol.bytesSent }
    }
  }

  /** What an operator should look at, in words. */
  problems ({ models, brake, scrub }: ReplicationReport): string[] {
    const { network, clock } = this.#components
    const reachable = network.getPeers().length
    return [...scrub.suspectSince === undefined ? [] : [SUSPECT], ...this.#replicator.rebuilding === 0 ? [] : [LEDGER_LOST], ...this.#trouble.problems({ models, brake, connected: reachable > 0, reachable }, clock.monotonic())]
  }

  #ports (): ReplicaPorts {
    const { network, clock, logger, isBanned, store, noted } = this.#components
    return {
      send: (to, message) => { this.#protocol.send(to, message) },
      heardAt: peerId => this.#protocol.heardAt(peerId),
      watch: peerIds => { this.#protocol.watch(peerIds) },
      reachable: () => network.getPeers().map(peer => peer.toString()).filter(peerId => !isBanned(peerId)),
      find: model => this.#searches.find(model),
      pull: job => {
        this.#watch.keep(job.model, true) // its bytes come before the next look
        this.#pulls.start(job)
      },
      cancel: (model, shard) => { this.#pulls.cancel(model, shard) },
      prove: (model, shards, seed, done, asker) => {
        this.#prover.prove({ model, shards, seed, done: digests => { this.#later(() => { done(digests) }) } }, asker)
      },
      scrub: (model, number) => {
        const stored = store.model(model)
        const shard = stored === undefined ? undefined : this.#shards.of(stored).all[number]
        if (shard !== undefined) this.#scrubber.shard(model, shard)
      },
      save: change => {
        this.#ledger.save(change)
        if (change.committed) this.#watch.keep(change.model, true)
      },
      savePolicies: change => { this.#ledger.savePolicies(change) },
      readPolicy: bytes => this.#policies.read(bytes),
      diskFreeBytes: () => this.#space.freeBytes,
      note: event => {
        this.#tally.note(event)
        this.#trouble.note(event, clock.monotonic())
        noted(event)
        if (event.type === 'brake') logger.warn(event, event.on ? 'many peers vanished at once: repair is held back' : 'repair goes on')
        else logger.debug(event, 'replication')
      }
    }
  }

  #noteRebuilt (): void {
    if (this.#isRebuilding && this.#replicator.rebuilding === 0) { this.#ledger.lostAt = undefined; this.#isRebuilding = false }
  }

  #lookAtCache (): void {
    const pulling = new Set(this.#pulls.jobs().map(({ model }) => model))
    this.#cache.look(model => pulling.has(model))
  }

  /** Tells the replicator how far its pulls are. Of a model whose manifest is not here yet there is nothing to tell. */
  #measure (now: number): void {
    const { store } = this.#components
    for (const { model, shard } of this.#pulls.jobs()) {
      const stored = store.model(model)
      const placed = stored === undefined ? undefined : this.#shards.of(stored).all[shard]
      if (placed !== undefined) this.#replicator.progress(model, shard, missingBytes(placed), now)
    }
  }

  /** Beyond the bound what came last is dropped: it is said again if it matters. */
  #received (from: string, message: ReplicaMessage): void {
    if (this.#inbox.length >= REPLICA_INBOX_MAX) return
    this.#later(now => { this.#replicator.receive(from, message, now) }, message.type === 'state' ? 1 + message.models.length : 1)
  }

  /** At the next tick that has room for it. */
  #later (work: (now: number) => void, weight = 1): void {
    if (!this.#running) return
    this.#inbox.push({ weight, work })
    this.#tickSoon()
  }

  #tickSoon (): void {
    if (this.#soon || !this.#running) return
    this.#soon = true
    this.#schedule(Math.min(TICK_MS, Math.max(SOON_MS, this.#tickMs / TICK_SHARE)))
  }

  #schedule (delayMs: number): void {
    this.#cancelTick()
    this.#cancelTick = this.#components.clock.setTimeout(() => { this.#tick() }, delayMs)
  }

  #tick (): void {
    const { clock, random, logger } = this.#components
    if (!this.#running) return
    this.#soon = false
    const guarded = (what: string, work: () => void): void => {
      try {
        work()
      } catch (error) {
        // A disk that cannot record, most of all: what was not done is still needed at the next tick.
        logger.error({ error: asError(error).message }, what)
      }
    }
    this.#protocol.awake()
    const now = clock.monotonic()
    guarded('the store could not be looked at', () => { this.#watch.look(now) })
    for (const { work } of this.#inbox.splice(0, heardAtOnce(this.#inbox))) guarded('what a peer said could not be dealt with', () => { work(now) })
    this.#replicator.drain(this.#drainAsked || this.#scrubber.suspect, now, this.#inHaste)
    guarded('a tick of the replicator failed', () => { this.#replicator.tick(now) })
    guarded('it could not be recorded that the ledger is rebuilt', () => { this.#noteRebuilt() })
    this.#watch.keepPromised()
    guarded('what may be evicted could not be told', () => { this.#lookAtCache() })
    this.#measure(now)
    this.#space.refreshSometimes(now)
    if (now - this.#lookedAt >= LOOK_FOR_TROUBLE_MS) {
      this.#lookedAt = now
      guarded('the state of replication could not be looked at', () => {
        this.#trouble.look(this.#replicator.models(now), this.#replicator.draining ? { ...this.#replicator.drainStatus(now), waits: !this.#replicator.inHaste } : undefined, now)
      })
    }
    this.#tickMs = clock.monotonic() - now
    if (this.#replicator.isBehind || this.#inbox.length > 0) this.#tickSoon()
    if (!this.#soon) this.#schedule(TICK_MS * (0.9 + 0.2 * random.next()))
  }
}

/** How many of those that wait one tick deals with. */
export function heardAtOnce (inbox: ReadonlyArray<{ weight: number }>): number {
  let left = REPLICA_HEARD_MAX
  const at = inbox.findIndex(({ weight }) => (left -= weight) < 0)
  return at === -1 ? inbox.length : Math.max(1, at)
}
