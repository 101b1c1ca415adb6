import { randomInt, seededRandom } from '../../src/base/index.ts'
import { Replicator, type ReplicatorInit } from '../../src/replication/replicator.ts'
import type { PolicyRecord, ReplicaMessage, ReplicationSettings } from '../../src/replication/types.ts'
import { Disk } from './disk.ts'
import { Parts } from './parts.ts'
import { LedgerFullError, createPorts } from './ports.ts'
import { SECOND, keyOf, modelIndexOf, shardOf, type Key, type SimModel } from './types.ts'
import type { Pull } from './transfer.ts'
import { Volume } from './volume.ts'
import type { World } from './world.ts'

const TICK_MS = 5 * SECOND
/** To the next one, when one has left something. */
const BEHIND_MS = 100
/** What a tick of each third node looks at: two or three shards. */
const LOOKS_MAX = 40
/** From waking up until the first pings are answered again. */
const WAKE_MS = 2 * SECOND

export interface NodeInit {
  index: number
  name: string
  labels: Record<string, string>
  donateBytes: number
  diskBytes: number
  bytesPerSecond: number
  settings: ReplicationSettings
}

/** A machine: disk, clock, process; and the real Replicator while that process runs. */
export class SimNode {
  readonly index: number
  readonly name: string
  readonly labels: Record<string, string>
  readonly settings: ReplicationSettings
  readonly disk: Disk
  bytesPerSecond: number
  /** Added to each message, when the node is slow. */
  lagMs = 0
  replicator: Replicator | undefined
  life = 0
  startedAt = -1
  /** Last came back at, and was last there at: for checks that must allow for what others could not know. */
  returnedAt = -1
  absentSince: number | undefined
  /** Gone in order, and said so. */
  leftInOrder = false
  /** Will not come back. */
  gone = false
  /** Frozen as by SIGSTOP: nothing is lost, nothing goes on. */
  hung = false
  waking = false
  /** A user is removing a model this moment: what is let go of is not the node's own doing. */
  forgetting = false
  /** Behind a one-way cut for good. */
  halfDeaf = false
  /** Answers pings and nothing else. */
  wedged = false
  wedgedAt = 0
  /** Claims, and cannot prove: nothing on its disk is right, and its own scrub sees nothing. */
  lies = false
  liesSince = Infinity
  /** By an operator. */
  drainAsked = false
  /** The volume of the ledger is full: nothing can be recorded, neither promises nor policies. */
  readOnly = false
  /** When a volume of it was last filled by others, and until when it was slow. */
  fullAt = -Infinity
  slowUntil = -Infinity
  /** When it promised what it has promised, and when a user removed what it had. */
  readonly tookAt = new Map<Key, number>()
  readonly forgotAt = new Map<Key, number>()
  clockRate = 1
  watched = new Set<number>()
  readonly pulls = new Map<Key, Pull>()
  readonly parts: Parts
  readonly volume: Volume
  inbox: Array<() => void> = []
  /** For planted bugs that know what proofs have to be. */
  readonly challenges = new Map<string, { nonce: Uint8Array, keys: Key[] }>()
  readonly known = new Set<number>()
  readonly #world: World
  #clockBase = 0

  constructor (world: World, init: NodeInit) {
    this.#world = world
    this.index = init.index
    this.name = init.name
    this.labels = init.labels
    this.settings = init.settings
    this.bytesPerSecond = init.bytesPerSecond
    this.disk = new Disk(init.diskBytes)
    this.parts = new Parts(world, this)
    this.volume = new Volume(world, this)
  }

  get running (): boolean { return this.replicator !== undefined }
  get draining (): boolean { return this.drainAsked || this.volume.suspect }
  /** Pings are answered. */
  get answers (): boolean { return this.running && !this.hung && !this.waking }
  /** A process that works, whatever others see of it. */
  get works (): boolean { return this.running && !this.hung && !this.wedged }

  /** This node's monotonic clock; no two nodes agree on it. */
  local (time: number): number { return Math.floor((time - this.startedAt) * this.clockRate) + this.#clockBase }

  get now (): number { return this.local(this.#world.now) }

  modelIndex (cid: string): number { return this.#world.modelOf(cid)?.index ?? -1 }

  soon (work: () => void): void { this.#world.queue.after(100, work) }

  start (): void {
    const world = this.#world
    this.life++
    this.disk.restart()
    this.startedAt = world.now
    this.returnedAt = world.now
    this.absentSince = undefined
    this.leftInOrder = false
    this.hung = this.waking = this.wedged = this.drainAsked = false
    this.inbox = []
    this.watched = new Set()
    this.known.clear()
    const seed = Math.imul(world.options.seed + 1, 7_919) + this.index * 1_009 + this.life
    const random = seededRandom(seed)
    this.#clockBase = randomInt(random, 1e9)
    const { plant } = world
    const ports = createPorts(world, this)
    const init: ReplicatorInit = {
      self: this.name,
      labels: this.labels,
      settings: this.settings,
      random,
      ports: plant?.ports?.(ports, this, (model, shard) => keyOf(world.modelOf(model)?.index ?? -1, shard)) ?? ports,
      commitments: [...this.disk.committed, ...this.disk.stale].map(key => ({ model: world.modelAt(key).cid, shard: shardOf(key) })),
      policies: [...this.disk.policies.values()],
      ledgerLostMs: this.disk.ledgerLostAt === undefined ? undefined : world.now - this.disk.ledgerLostAt,
      looksMax: this.index % 3 === 2 ? LOOKS_MAX : undefined
    }
    const replicator = new Replicator(plant?.init?.(init) ?? init)
    plant?.patch?.(replicator, this)
    this.replicator = replicator
    for (const model of world.models) {
      if (this.disk.models.has(model.index)) this.tellModel(model)
    }
    replicator.start(this.local(world.now))
    world.checks.settling.starts(this)
    this.volume.starts()
    if (world.trace.keeps) world.line(undefined, `${this.name} starts with ${this.disk.committed.size} commitments`)
    world.trace.mix(this.index)
    world.network.refresh()
    const life = this.life
    const offset = randomInt(random, TICK_MS)
    const tick = (): void => {
      if (this.life !== life || this.replicator === undefined) return
      if (!this.hung && !this.wedged) {
        world.stats.ticks++
        this.#tick()
      }
      world.queue.after(this.replicator.isBehind ? BEHIND_MS : TICK_MS, tick)
    }
    world.queue.after(offset, tick)
  }

  /** As in service.ts. */
  #tick (): void {
    const { replicator } = this
    this.volume.tick()
    replicator?.drain(this.draining, this.now)
    this.#guarded(() => { replicator?.tick(this.now) })
    if (replicator?.rebuilding === 0) this.#rebuilt(replicator)
    this.volume.check()
  }

  /** It says that it knows what it has to keep: where it knows what is wanted, what it did not promise again did not fit. */
  #rebuilt (replicator: Replicator): void {
    if (!this.readOnly) this.disk.ledgerLostAt = undefined
    for (const key of this.disk.lostPromises) {
      const model = this.#world.modelAt(key)
      if (!this.#world.checks.wanted(model) || (replicator.policyOf(model.cid)?.target ?? 0) > 0) this.disk.lostPromises.delete(key)
    }
  }

  /** kill -9, or the power. */
  stop (): void {
    if (!this.running) return
    const world = this.#world
    world.transfers.cancelAll(this)
    this.replicator = undefined
    this.life++
    this.absentSince ??= world.now
    world.network.refresh()
  }

  leave (): void {
    this.#world.disturb(0)
    if (this.works) this.replicator?.leave(this.local(this.#world.now))
    this.leftInOrder = true
    this.stop()
  }

  hang (): void {
    this.hung = true
    this.absentSince ??= this.#world.now
    this.#world.network.refresh()
  }

  /** What waited is done at once, the first tick before anybody was heard again: as it is after SIGCONT. */
  resume (): void {
    if (!this.hung) return
    const world = this.#world
    this.hung = false
    this.waking = true
    this.#guarded(() => { this.replicator?.tick(this.local(world.now)) })
    const waiting = this.inbox
    this.inbox = []
    for (const run of waiting) run()
    const life = this.life
    world.queue.after(WAKE_MS, () => {
      if (this.life !== life) return
      this.waking = false
      this.absentSince = undefined
      this.returnedAt = world.now
      world.network.refresh()
    })
  }

  receive (from: SimNode, message: ReplicaMessage): void {
    const { plant } = this.#world
    const heard = plant?.receive === undefined ? message : plant.receive(message, from, this)
    if (heard === undefined) return
    this.#world.checks.settling.receives(this, from, heard)
    this.#guarded(() => { this.replicator?.receive(from.name, heard, this.local(this.#world.now)) })
  }

  tellModel (model: SimModel): void {
    this.known.add(model.index)
    this.replicator?.model({ cid: model.cid, shardBytes: model.shardBytes, held: this.disk.heldOf(model), kept: this.disk.kept.has(model.index) }, this.local(this.#world.now))
  }

  /** A user here publishes or pins, or unpins: all of it is on this disk already. False: that could not be recorded. */
  publish (model: SimModel, record: PolicyRecord): boolean {
    if (record.target > 0) this.disk.kept.add(model.index)
    else this.disk.kept.delete(model.index)
    this.tellModel(model)
    return this.#guarded(() => { this.replicator?.setPolicy(record, this.local(this.#world.now)) })
  }

  /** A user here removes a model, whatever was promised; the store has removed it when the replicator hears of it. */
  forget (model: SimModel): void {
    this.disk.forget(model.index)
    this.known.delete(model.index)
    const held = this.disk.heldOf(model)
    for (const shard of held) {
      const key = keyOf(model.index, shard)
      if (this.disk.committed.has(key)) this.forgotAt.set(key, this.#world.now)
      this.disk.remove(key, model.shardBytes[shard] ?? 0)
    }
    if (this.#world.trace.keeps) this.#world.line(undefined, `${this.name} forgets ${model.cid}`)
    this.forgetting = true
    this.replicator?.forget(model.cid, this.local(this.#world.now))
    this.forgetting = false
    for (const shard of held) this.#world.checks.removed(this, keyOf(model.index, shard))
    this.#world.checks.forgot(this, model)
  }

  /** As in service.ts: what could not be recorded is not done, and the node goes on. */
  #guarded (work: () => void): boolean {
    try {
      work()
      return true
    } catch (error) {
      if (!(error instanceof LedgerFullError)) throw error
      return false
    }
  }

  pulled (model: SimModel, shard: number, ok: boolean): void {
    if (!this.running) return
    if (ok && !this.known.has(model.index)) this.tellModel(model)
    this.#guarded(() => { this.replicator?.pulled(model.cid, shard, ok, this.local(this.#world.now)) })
  }

  /** Its scrub finds a bad shard. */
  finds (key: Key): void {
    this.loses(key, 'scrub')
    this.volume.found()
  }

  /** Content is bad or gone, and this node knows. */
  loses (key: Key, why: string): void {
    const model = this.#world.modelAt(key)
    this.disk.remove(key, model.shardBytes[shardOf(key)] ?? 0)
    if (this.#world.trace.keeps) this.#world.line(key, `${this.name} ${why}: ${model.cid}/${shardOf(key)} is gone from its disk`)
    this.replicator?.lost(model.cid, shardOf(key), this.local(this.#world.now))
    this.#world.checks.removed(this, key)
  }

  /** The store's garbage collection: whole models that nobody here keeps. */
  collect (model: SimModel): boolean {
    const { replicator } = this
    if (replicator === undefined || this.disk.kept.has(model.index) || replicator.keeps(model.cid)) return false
    const held = this.disk.heldOf(model)
    if (held.length === 0) return false
    for (const shard of held) {
      const key = keyOf(model.index, shard)
      // Of what is not wanted any more a lost ledger had no promise (seed 600059 of all faults).
      const isLost = this.disk.lostPromises.has(key) && this.#world.checks.wanted(model)
      if ((this.disk.committed.has(key) || isLost) && this.disk.right(key)) this.#world.checks.fail('nobody evicts what it promised', `${this.name} collects ${model.cid}/${shard}, to which it is committed${isLost ? ' by the ledger that it lost' : ''}`, key)
      this.#world.checks.collects(this, key)
      this.loses(key, 'collects')
    }
    return true
  }

  /** Frees so many bytes, as the store does: first shards that were let go of, then whole models that nobody keeps. */
  evict (bytes: number): void { this.makeRoom(this.disk.free + bytes) }

  makeRoom (bytes: number): boolean {
    this.parts.free(bytes - this.disk.free)
    const models = new Set([...this.disk.keys()].map(modelIndexOf))
    for (const index of models) {
      if (this.disk.free >= bytes) break
      const model = this.#world.models[index]
      if (model !== undefined && [...this.pulls.values()].every(pull => pull.model !== model)) this.collect(model)
    }
    return this.disk.free >= bytes
  }
}
