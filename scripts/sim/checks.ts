import { defaultReplication as intended } from '../../src/replication/settings.ts'
import type { ReplicationEvent } from '../../src/replication/types.ts'
import { checkAtRest, recordedPolicy } from './at-rest.ts'
import { Bytes, POLICY_SPREAD_MS } from './bytes.ts'
import { Churn } from './churn.ts'
import type { SimNode } from './node.ts'
import { Settling } from './settling.ts'
import { EXCUSES, MINUTE, SECOND, keyOf, shardOf, type Key, type SimModel, type Violation } from './types.ts'
import type { World } from './world.ts'

/**
 * What nobody can know yet when it lets go: a holder that died this moment (no message says so), or went behind a cut, or had a user
 * who removed the model; and rot since the last proof, which trim demands to be ten minutes old at most.
 */
const DEATH_UNSEEN_MS = MINUTE
/** Until who is silent is suspect: fifteen seconds, and two ticks. */
const SILENCE_UNSEEN_MS = 25 * SECOND
const ROT_UNSEEN_MS = 11 * MINUTE
/** Who lets go asks all others first, and does it within this of the answers: ten seconds and the slowest of networks. */
const ANSWERS_MS = 30 * SECOND
/** A reboot in order, and then the time in which late consequences would show. */
export const REBOOT_MS = 10 * MINUTE
const REBOOT_AFTER_MS = 3 * MINUTE
const QUIET_MS = 20 * MINUTE

const WASTE_SHARE = 0.2
/** A single race (a node comes back while its replacement starts) is no tenth of a long run, but may be of a short one. */
const WASTE_RACES = 3

/** What has to hold while faults go on. What has to be right when none has for a while is in at-rest.ts, the bytes in bytes.ts. */
export class Checks {
  violation: Violation | undefined
  readonly bytes: Bytes
  readonly settling: Settling
  readonly churn: Churn
  readonly #world: World
  readonly #rescued = new Set<string>()
  /** When somebody last promised a shard or let go of it. */
  readonly #changedAt = new Map<Key, number>()

  constructor (world: World) {
    this.#world = world
    this.bytes = new Bytes(world)
    this.settling = new Settling(world)
    this.churn = new Churn(world)
  }

  fail (invariant: string, text: string, key?: Key): void {
    this.violation ??= { invariant, at: this.#world.now, text, key }
  }

  /** A right copy on a machine that works. */
  hasCopy (key: Key, without: readonly SimNode[] = []): boolean {
    return this.#world.nodes.some(node => node.works && !without.includes(node) && node.disk.right(key))
  }

  alive (model: SimModel): boolean {
    return model.at !== Infinity && model.shardBytes.every((_, shard) => this.hasCopy(keyOf(model.index, shard)))
  }

  changedAt (key: Key): number { return this.#changedAt.get(key) ?? -Infinity }

  wanted (model: SimModel): boolean { return model.at !== Infinity && model.policy.target > 0 }

  saved (node: SimNode, key: Key, committed: boolean): void {
    this.#world.trace.mix(key * 2 + (committed ? 1 : 0))
    this.#changedAt.set(key, this.#world.now)
    if (committed) this.churn.taken(key)
    if (committed) this.#withinDonation(node, key)
    else if (node.disk.right(key)) this.#mayLetGo(node, key, { invariant: 'nobody lets go below target', unseenMs: ANSWERS_MS, wedgedMs: ANSWERS_MS, rotMs: ROT_UNSEEN_MS })
  }

  #withinDonation (node: SimNode, key: Key): void {
    const { nodes, network } = this.#world
    // What its user keeps is not of the donation, not even where that is full because the user keeps something else no more.
    if (node.disk.kept.has(this.#world.modelAt(key).index)) return
    if (node.lies) return // it sees all proofs of others fail, and takes its own copy for the last
    // The last copy that can be reached is kept even where nothing is given.
    const alone = !nodes.some(other => other.works && other.disk.keeps(key) && other.disk.right(key) && !other.draining && network.good(node.index, other.index))
    if (alone) this.#rescued.add(`${key} ${node.index}`)
    let bytes = 0
    for (const each of node.disk.committed) {
      const model = this.#world.modelAt(each)
      if (!node.disk.kept.has(model.index) && !this.#rescued.has(`${each} ${node.index}`)) bytes += model.shardBytes[shardOf(each)] ?? 0
    }
    if (!alone && bytes > node.settings.donateBytes) this.fail('nobody holds more than it gives', `${node.name} committed ${bytes} bytes and gives ${node.settings.donateBytes}`, key)
  }

  /**
   * Whoever lets go leaves as many right, committed copies as its policy wants on others that it could hear, within `unseenMs`, or, with `hearsay`, that
   * others heard whom it hears: those on the other side of a partition do not count for it. Who answers pings and nothing else is found out after `wedgedMs` at the latest, whose bytes
   * are not right any more after `rotMs`.
   */
  #mayLetGo (node: SimNode, key: Key, { invariant, unseenMs, wedgedMs, rotMs, hearsay = false }: { invariant: string, unseenMs: number, wedgedMs: number, rotMs: number, hearsay?: boolean }): void {
    const { now, nodes, network } = this.#world
    const reached = (from: SimNode, to: SimNode): boolean => network.reached(from.index, to.index, now - unseenMs)
    const model = this.#world.modelAt(key)
    const target = node.replicator?.policyOf(model.cid)?.target ?? 0
    if (target === 0) {
      if (this.wanted(model) && now - model.changedAt > POLICY_SPREAD_MS && model.before.target > 0) this.fail('what is pinned stays pinned', `${node.name} lets go of ${model.cid}/${shardOf(key)}, which is wanted ${model.policy.target} times`, key)
      return
    }
    let running = 0
    for (const other of nodes) {
      if (other === node) continue
      const isHeard = reached(node, other) || (hearsay && nodes.some(third => third !== node && third !== other && third.works && reached(node, third) && reached(third, other)))
      if (!isHeard) continue
      // What is replayed of the dead lets them live on (seed 600128 of all faults).
      const heardAt = hearsay ? Math.max(...nodes.map(third => third.works ? network.messageFrom(third.index, other.index) : -Infinity)) : -Infinity
      const diedNow = other.absentSince !== undefined && now - Math.max(other.absentSince, heardAt) < unseenMs
      if ((diedNow && other.disk.keptBefore(key)) || now - (other.forgotAt.get(key) ?? -Infinity) < unseenMs) { running++; continue }
      if (other.gone || !other.disk.keeps(key)) continue
      const wedged = other.wedged && now - other.wedgedAt > wedgedMs
      const seen = (other.running && !other.hung && !wedged) || diedNow
      const right = other.disk.right(key, now - rotMs) || (other.lies && now - other.liesSince < rotMs)
      if (seen && right) running++
    }
    if (running < target) this.fail(invariant, `${node.name} lets go of ${model.cid}/${shardOf(key)} while ${running} others that it can hear have it committed and right; target is ${target}`, key)
  }

  /** A shard that was let go of goes, alone, to make room. */
  evicts (node: SimNode, key: Key): void {
    const { now, nodes, network } = this.#world
    const model = this.#world.modelAt(key)
    const what = `${node.name} evicts ${model.cid}/${shardOf(key)}`
    if (node.disk.committed.has(key) || (node.disk.lostPromises.has(key) && this.wanted(model))) this.fail('nobody evicts what it promised', `${what}, to which it is committed`, key)
    if (!node.disk.right(key) || !this.wanted(model) || (node.replicator?.policyOf(model.cid)?.target ?? 0) === 0) return
    const known = (other: SimNode): boolean => {
      // What is replayed of the dead lets them live on (seed 8706).
      const justDied = other.absentSince !== undefined && now - Math.max(other.absentSince, network.messageFrom(node.index, other.index)) < DEATH_UNSEEN_MS
      if ((justDied && other.disk.keptBefore(key)) || now - (other.forgotAt.get(key) ?? -Infinity) < DEATH_UNSEEN_MS) return true
      const right = other.disk.right(key, now - intended.proofTtlMs) || (other.lies && now - other.liesSince < intended.proofTtlMs)
      return other.disk.keeps(key) && right && (other.running || justDied)
    }
    if (!nodes.some(other => other !== node && known(other))) this.fail('the last copy known is not evicted', `${what}, and nobody else is there who has promised it`, key)
  }

  /** A model that nobody here keeps goes, to make room: not the last copy of what somebody wants, as far as this node can know. */
  collects (node: SimNode, key: Key): void {
    const model = this.#world.modelAt(key)
    if (this.isLastKnown(node, key)) this.fail('the last copy known is not evicted', `${node.name} collects ${model.cid}/${shardOf(key)}, and nobody else is there who has it`, key)
  }

  /** It has what it knows to be wanted, and nobody else that it can know of has. */
  isLastKnown (node: SimNode, key: Key): boolean {
    const { now, nodes, network } = this.#world
    const model = this.#world.modelAt(key)
    if (!node.disk.right(key) || !this.wanted(model) || (node.replicator?.policyOf(model.cid)?.target ?? 0) === 0) return false
    const isKnown = (other: SimNode): boolean => {
      // What is replayed of the dead lets them live on.
      const isThere = other.running || now - Math.max(other.absentSince ?? -Infinity, network.messageFrom(node.index, other.index)) < SILENCE_UNSEEN_MS
      const justLost = other.disk.keptBefore(key) || now - (other.forgotAt.get(key) ?? -Infinity) < DEATH_UNSEEN_MS
      return isThere && (other.disk.has(key) || justLost)
    }
    return !nodes.some(other => other !== node && isKnown(other))
  }

  noted (node: SimNode, event: ReplicationEvent, key: Key): void {
    if (event.type === 'offered' && event.why === 'spread') {
      const to = this.#world.nodeOf(event.to)
      if (to !== undefined) this.bytes.spread(key, to)
    }
    if (event.type === 'committed' && !node.disk.has(key)) this.fail('a commitment is on disk', `${node.name} committed to ${event.model}/${event.shard} without having it`, key)
  }

  /** A copy left a disk: some other right one is somewhere, unless nobody wants it. */
  removed (node: SimNode, key: Key): void {
    const model = this.#world.modelAt(key)
    if (!this.wanted(model)) return
    if (!this.#world.nodes.some(other => !other.gone && other.disk.right(key))) this.fail('no shard is lost', `${node.name} removed the last right copy of ${model.cid}/${shardOf(key)}`, key)
  }

  /** A user removed the model: the promises went with the bytes, whether or not the ledger could be written. */
  forgot (node: SimNode, model: SimModel): void {
    for (const key of node.disk.committed) {
      if (this.#world.modelAt(key) === model) this.fail('what is removed is not promised', `${node.name} is still committed to ${model.cid}/${shardOf(key)}, which its user removed`, key)
    }
  }

  /** A policy could not be recorded, and its publisher was told so: what is in force is what is recorded. */
  refused (node: SimNode, model: SimModel): void {
    const inForce = node.replicator?.policyOf(model.cid)?.target ?? 0
    const { target } = recordedPolicy(node, model)
    if (inForce !== target) this.fail('what could not be recorded is not in force', `${node.name} wants ${model.cid} ${inForce} times, which it could not record; what is recorded is ${target}`)
  }

  /** drainStatus said that nothing is left. */
  drained (node: SimNode): void {
    for (const key of node.disk.keys()) {
      const model = this.#world.modelAt(key)
      if (!node.disk.keeps(key) || !node.disk.right(key) || !this.wanted(model)) continue
      // What was handed over shard by shard, each on fresh promises, counts while it is proven: one of those that took the first shards may
      // be wedged (seed 3059) or begin to lie (185 of all faults) before the last one is taken, and nobody can know. Behind a cut that others
      // do not share it is silent, and not gone (500088 of all faults).
      this.#mayLetGo(node, key, { invariant: 'a drain ends when all is handed over', hearsay: true, unseenMs: DEATH_UNSEEN_MS, wedgedMs: intended.proofTtlMs, rotMs: intended.proofTtlMs })
    }
    for (const key of node.disk.committed) {
      const model = this.#world.modelAt(key)
      if (this.wanted(model) && (node.replicator?.policyOf(model.cid)?.target ?? 0) > 0) this.fail('a drain leaves no promises', `${node.name} says that it is drained and has promised ${model.cid}/${shardOf(key)}`, key)
    }
  }

  /** An orderly reboot moves nothing: decided only where nothing else goes on and at least min copies are left. */
  reboots (node: SimNode): void {
    const world = this.#world
    if (world.activeFaults > 0 || world.now - world.disturbedAt < QUIET_MS || world.transfers.active.size > 0) return
    for (const model of world.models) {
      if (!this.wanted(model)) continue
      for (let shard = 0; shard < model.shardBytes.length; shard++) {
        const key = keyOf(model.index, shard)
        if (this.bytes.present(key) < model.policy.target || this.bytes.present(key, node) < model.policy.min) return
      }
    }
    const before = this.bytes.pulls
    const { now } = world
    world.queue.after(REBOOT_MS + REBOOT_AFTER_MS, () => {
      if (world.disturbedAt === now && this.bytes.pulls > before) this.fail('an orderly ten-minute reboot moves nothing', `${this.bytes.pulls - before} pulls began after ${node.name} rebooted`)
    })
  }

  /** No fault has been at work for as long as all of it may take. */
  atRest (): void {
    this.#world.stats.rests++
    checkAtRest(this.#world)
  }

  atEnd (): void {
    checkAtRest(this.#world)
    this.bytes.atEnd()
    const { stats, models } = this.#world
    const shardMax = Math.max(...models.flatMap(model => model.shardBytes))
    if (stats.bytesWasted <= WASTE_SHARE * stats.bytesNeeded + WASTE_RACES * shardMax) return
    const excused = EXCUSES.map(cause => `${cause} ${stats.bytesExcused[cause]}`).join(', ')
    this.fail('repair moves at most 1.2 of the least possible', `${stats.bytesWasted} bytes were moved for nothing, ${stats.bytesNeeded} were needed (${(1 + stats.bytesWasted / stats.bytesNeeded).toFixed(2)}); excused: ${excused}`)
  }
}
