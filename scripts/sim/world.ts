import { MiB, randomInt, seededRandom, shuffle, type Random } from '../../src/base/index.ts'
import { defaultReplication } from '../../src/replication/settings.ts'
import type { Policy, PolicyRecord, ReplicationEvent, ReplicationSettings } from '../../src/replication/types.ts'
import { Checks } from './checks.ts'
import { scheduleFaults, healAll } from './faults.ts'
import { Network } from './network.ts'
import { SimNode } from './node.ts'
import type { Plant } from './plant.ts'
import { plantNamed } from './planted.ts'
import { policyBytes } from './ports.ts'
import { EventQueue } from './queue.ts'
import { Trace } from './trace.ts'
import { Transfers } from './transfer.ts'
import { FAULTS, HOUR, MINUTE, SCRUB_PERIODS_MS, keyOf, modelIndexOf, type FaultName, type Key, type SimModel, type SimOptions, type SimResult, type SimStats } from './types.ts'

/** From the end of the faults until everything has to be right: grace, brake and settling are ten minutes each at most. */
export const LIVENESS_MS = 30 * MINUTE
const ZONES = 3
const RACKS_PER_ZONE = 2

/** One seed: nodes, models, faults, and one queue of what happens next. */
export class World {
  readonly options: SimOptions
  readonly queue = new EventQueue()
  readonly trace: Trace
  readonly nodes: SimNode[] = []
  readonly models: SimModel[] = []
  /** Who ever had something of each model; DHT records outlive their truth. */
  readonly providers: Array<Set<number>> = []
  readonly network: Network
  readonly transfers: Transfers
  readonly checks: Checks
  readonly faults: readonly FaultName[]
  readonly plant: Plant | undefined
  readonly settings: ReplicationSettings
  readonly stats: SimStats = { nodeHours: 0, repairs: 0, bytesMoved: 0, bytesNeeded: 0, bytesSpread: 0, bytesOwn: 0, bytesExcused: { cut: 0, liar: 0, 'message-loss': 0, slow: 0, 'full-disk': 0 }, bytesWasted: 0, replicas: 0, surplus: 0, messages: 0, ticks: 0, rests: 0, spared: 0 }
  readonly randoms: { find: Random, disk: Random }
  readonly faultsEndAt: number
  readonly endAt: number
  /** After so long without a fault all has to be right. */
  readonly restMs: number
  /** Faults that are at work now, and when the last one began or ended. */
  activeFaults = 0
  disturbedAt = 0
  readonly #nodeByName = new Map<string, SimNode>()
  readonly #modelByCid = new Map<string, SimModel>()

  constructor (options: SimOptions, trace: Trace) {
    this.options = options
    this.trace = trace
    this.plant = options.plant === undefined ? undefined : plantNamed(options.plant)
    const shape = this.random('world')
    this.faults = options.faults ?? this.#drawFaults()
    this.randoms = { find: this.random('find'), disk: this.random('disk') }
    const settings = { ...defaultReplication, donateBytes: 0, scrubPeriodMs: SCRUB_PERIODS_MS[randomInt(this.random('scrub'), SCRUB_PERIODS_MS.length)] as number }
    this.settings = this.plant?.settings?.(settings) ?? settings
    // Rot and lies are seen when a proof fails or runs out, which takes up to its time to live.
    const unseen = this.faults.some(fault => fault === 'rot' || fault === 'liar' || fault === 'bad-volume') ? defaultReplication.proofTtlMs : 0
    this.restMs = LIVENESS_MS + unseen
    this.endAt = options.hours * HOUR
    this.faultsEndAt = Math.max(30 * MINUTE, this.endAt - this.restMs)
    this.transfers = new Transfers(this)
    this.network = new Network(this, options.nodes, this.random('network'), this.random('messages'))
    this.checks = new Checks(this)
    this.#build(shape)
  }

  get now (): number { return this.queue.now }

  /** Each concern has its own, so that a fault more does not shift the others. */
  random (concern: string): Random {
    let h = Math.imul(this.options.seed + 1, 0x9e3779b1)
    for (let i = 0; i < concern.length; i++) h = Math.imul(h ^ concern.charCodeAt(i), 0x01000193)
    return seededRandom(h)
  }

  nodeOf (name: string): SimNode | undefined { return this.#nodeByName.get(name) }
  modelOf (cid: string): SimModel | undefined { return this.#modelByCid.get(cid) }
  modelAt (key: Key): SimModel { return this.models[modelIndexOf(key)] as SimModel }
  line (key: Key | undefined, text: string): void { this.trace.line(this.now, key, text) }

  run (): SimResult {
    scheduleFaults(this)
    this.queue.at(this.faultsEndAt, () => { healAll(this) })
    try {
      while (this.checks.violation === undefined && this.queue.step(this.endAt)) { /* the queue does it */ }
      if (this.checks.violation === undefined) this.checks.atEnd()
      if (this.checks.violation === undefined) this.checks.churn.watch()
    } catch (error) {
      this.checks.fail('no call throws', error instanceof Error ? error.stack ?? error.message : String(error))
    }
    const { violation } = this.checks
    this.stats.nodeHours = this.nodes.length * Math.min(this.now, this.endAt) / HOUR
    return { seed: this.options.seed, faults: [...this.faults], violation, stats: this.stats, hash: this.trace.hash, trace: this.trace.text(violation?.key, 150) }
  }

  noted (node: SimNode, event: ReplicationEvent): void {
    if ('shard' in event) {
      const model = this.modelOf(event.model)
      const key = keyOf(model?.index ?? -1, event.shard)
      this.trace.mix(key)
      if (this.trace.keeps && event.type !== 'proof-asked' && event.type !== 'proof-failed') {
        const { type, model: cid, shard, ...rest } = event
        this.line(key, `${node.name} ${type} ${cid}/${shard} ${JSON.stringify(rest)}`)
      }
      this.checks.noted(node, event, key)
    }
    this.checks.settling.noted(node, event)
    if ('shard' in event) { /* told above */ } else if (this.trace.keeps) {
      this.line(undefined, `${node.name} ${event.type === 'peer' ? `sees ${event.peerId} ${event.from} -> ${event.to}` : `brake ${event.on ? 'on' : 'off'}`}`)
    }
    this.trace.mixText(event.type)
    this.trace.mix(node.index)
    this.trace.mix(this.now)
  }

  disturb (by: 1 | -1 | 0): void {
    if (this.activeFaults === 0 && this.now - this.disturbedAt >= this.restMs) this.checks.atRest()
    this.activeFaults += by
    this.disturbedAt = this.now
  }

  /**
   * A user on `node` adds the model's files, or pins what is there, or unpins it (`target` 0). A model may have several publishers; the
   * most demanding counts.
   */
  publish (node: SimNode, model: SimModel, policy: Policy): void {
    const { replicator } = node
    if (replicator === undefined) return
    const unsigned = { model: model.cid, sequence: replicator.nextSequence(model.cid, Math.floor(this.now / 1_000)), publisher: node.name, ...policy }
    const record: PolicyRecord = { ...unsigned, bytes: policyBytes(unsigned) }
    this.disturb(0)
    node.disk.open(model.index)
    if (this.trace.keeps) this.line(undefined, `${node.name} publishes ${model.cid} ${JSON.stringify(policy)}`)
    model.shardBytes.forEach((bytes, shard) => {
      const key = keyOf(model.index, shard)
      if (node.disk.has(key)) return
      node.disk.write(key, bytes)
    })
    this.providers[model.index]?.add(node.index)
    if (!node.publish(model, record)) {
      this.checks.refused(node, model)
      return
    }
    const first = model.at === Infinity
    model.records.set(node.name, record)
    const asked = mostDemanding(model.records.values())
    model.before = first ? asked : model.policy
    model.policy = asked
    model.changedAt = this.now
    if (first) model.at = this.now
  }

  #drawFaults (): FaultName[] {
    const random = this.random('faults')
    return shuffle(random, [...FAULTS]).slice(0, randomInt(random, 6))
  }

  #build (random: Random): void {
    const { nodes, seed } = this.options
    const count = 2 + randomInt(random, 4)
    const shapes = Array.from({ length: count }, () => Array.from({ length: 1 + randomInt(random, 12) }, () => (4 + randomInt(random, 252)) * MiB))
    const total = shapes.flat().reduce((sum, bytes) => sum + bytes, 0)
    // Room for each shard on every third node at least, so that capacity is there after many are gone.
    const joins = this.faults.includes('join') ? Math.floor(nodes / 5) : 0
    for (let index = 0; index < nodes; index++) {
      const zone = index % ZONES
      // One in six gives little, so that space is asked for in vain now and then.
      const donateBytes = Math.round(index % 6 === 5 ? 512 * MiB * random.next() : total * (12 / nodes) * (0.7 + random.next()) + 512 * MiB)
      this.nodes.push(new SimNode(this, {
        index,
        name: `n${index}-${seed}`,
        labels: { zone: `z${zone}`, rack: `z${zone}r${Math.floor(index / ZONES) % RACKS_PER_ZONE}`, host: `h${index}` },
        donateBytes,
        diskBytes: donateBytes + 2 * total,
        bytesPerSecond: (10 + randomInt(random, 110)) * MiB,
        settings: { ...this.settings, donateBytes }
      }))
    }
    for (const node of this.nodes) {
      this.#nodeByName.set(node.name, node)
      if (this.faults.includes('skew')) node.clockRate = 0.99 + this.random(`skew${node.index}`).next() * 0.02
      const joinsAt = node.index >= nodes - joins ? randomInt(random, this.faultsEndAt) : randomInt(random, 2 * MINUTE)
      this.queue.at(joinsAt, () => {
        if (!node.gone) node.start()
        if (node.index >= nodes - joins) this.disturb(0)
      })
    }
    shapes.forEach((shardBytes, index) => {
      const target = 2 + randomInt(random, 3)
      const policy = { min: Math.min(2, target), target, max: target + randomInt(random, 3) }
      const publisher = randomInt(random, nodes - joins)
      const cid = `m${index}-${seed}`
      const model: SimModel = { index, cid, shardBytes, publisher, records: new Map(), policy, before: policy, changedAt: 0, at: Infinity }
      this.models.push(model)
      this.#modelByCid.set(cid, model)
      this.providers.push(new Set())
      const at = 2 * MINUTE + randomInt(random, index === 0 ? 3 * MINUTE : Math.max(1, Math.floor(this.faultsEndAt * 0.6)))
      this.queue.at(at, () => {
        const node = this.nodes[publisher]
        // What a liar publishes was never there.
        if (node?.works === true && !node.lies) this.publish(node, model, policy)
      })
    })
    const loads = this.random('loads')
    for (let at = 20 * MINUTE; at < this.faultsEndAt; at += 20 * MINUTE + loads.next() * HOUR) {
      const [who, what] = [loads.next(), loads.next()]
      this.queue.at(at, () => { this.#load(this.nodes[Math.floor(who * nodes)] as SimNode, this.models[Math.floor(what * count)] as SimModel) })
    }
    const collects = this.random('collect')
    for (let at = 30 * MINUTE; at < this.endAt; at += 10 * MINUTE) {
      const [who, what] = [collects.next(), collects.next()]
      this.queue.at(at, () => {
        const node = this.nodes[Math.floor(who * nodes)]
        if (node?.works === true) node.collect(this.models[Math.floor(what * count)] as SimModel)
      })
    }
  }

  /** A user loads a model: it is here, in full and right, and free to go. */
  #load (node: SimNode, model: SimModel): void {
    const bytes = model.shardBytes.reduce((sum, each) => sum + each, 0)
    if (!node.works || node.disk.free < bytes || !this.checks.alive(model)) return
    node.disk.open(model.index)
    model.shardBytes.forEach((each, shard) => {
      const key = keyOf(model.index, shard)
      if (node.disk.has(key)) return
      node.disk.write(key, each)
      if (node.lies) node.disk.rot(key, this.now)
    })
    this.providers[model.index]?.add(node.index)
    if (this.trace.keeps) this.line(undefined, `${node.name} loads ${model.cid}`)
    node.tellModel(model)
  }
}

/** Of equal targets the wider. */
export function mostDemanding (records: Iterable<Policy>): Policy {
  let policy: Policy = { min: 0, target: 0, max: 0 }
  for (const { min, target, max } of records) {
    if (target > policy.target || (target === policy.target && (max > policy.max || (max === policy.max && min > policy.min)))) policy = { min, target, max }
  }
  return policy
}

export function runSeed (options: SimOptions, keepTrace = false): SimResult {
  return new World(options, new Trace(keepTrace)).run()
}
