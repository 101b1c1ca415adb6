import { defaultReplication as intended } from '../../src/replication/settings.ts'
import type { ReplicationEvent } from '../../src/replication/types.ts'
import type { SimNode } from './node.ts'
import type { Pull } from './transfer.ts'
import { MINUTE, SCRUB_PERIOD_MS, SECOND, keyOf, modelIndexOf, shardOf, type FaultName, type Key, type SimModel, type Violation } from './types.ts'
import type { World } from './world.ts'

/**
 * What nobody can know yet when it lets go: a holder that died this moment (no message says so), and rot since the
 * last proof, which trim demands to be ten minutes old at most.
 */
const DEATH_UNSEEN_MS = MINUTE
const ROT_UNSEEN_MS = 11 * MINUTE
/** Who came back so short ago may not be known to be back. */
const RETURN_UNSEEN_MS = 90 * SECOND
/** A policy takes this long to reach every holder. */
const POLICY_SPREAD_MS = 10 * MINUTE
/** From the end of a proof's time to a replica elsewhere. */
const WEDGED_UNSEEN_MS = 15 * MINUTE
/** From the end of a scrub's period to a right copy in the place of the bad one. */
const ROT_MENDED_MS = 25 * MINUTE
/** A reboot in order, and then the time in which late consequences would show. */
export const REBOOT_MS = 10 * MINUTE
const REBOOT_AFTER_MS = 3 * MINUTE
const QUIET_MS = 20 * MINUTE

/**
 * Least possible bytes. A pull is needed if, when it starts, fewer copies than the target exist or are on their way that
 * an observer who sees everything would count: committed, content right, on a node that is there or has been missing
 * for no longer than the grace for what is left, and that neither drains nor is wedged. Each such deficit takes one copy, so what is
 * needed is the bytes of the needed pulls that ended well; everything else that was moved is waste: pulls that failed
 * half-way, from wrong sources, or that nobody needed. Moves for the spread over domains are counted apart.
 *
 * Faults under which needless copies are right, because no node can know better, leave this check out: both sides of a
 * partition repair; a liar believes nobody's proof; who loses messages doubts its peers. A one-way cut alone is
 * decided; but who starts, or is first told of a shard, behind one never hears what the other side holds.
 */
const BYTES_UNDECIDED: readonly FaultName[] = ['partition', 'liar', 'message-loss', 'slow', 'full-disk']
/** Whether needless copies under these faults are the Replicator's own fault. */
export function bytesDecided (faults: readonly FaultName[]): boolean {
  return !faults.some(fault => BYTES_UNDECIDED.includes(fault)) && !(faults.includes('one-way') && faults.length > 1)
}
const BYTES_FACTOR = 1.2
/** A single race (a node comes back while its replacement starts) is no tenth of a long run, but may be of a short one. */
const BYTES_RACES = 3
const SURPLUS_UNDECIDED: readonly FaultName[] = ['partition', 'liar', 'message-loss', 'pin', 'hang']
const SURPLUS_SHARE = 0.01

export class Checks {
  violation: Violation | undefined
  readonly #world: World
  readonly #needed = new WeakSet<Pull>()
  readonly #spreadOffers = new Set<string>()
  /** Replicas that came back after they had been replaced. */
  readonly #returned = new Map<Key, number>()
  readonly #rescued = new Set<string>()
  #pulls = 0

  constructor (world: World) { this.#world = world }

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

  wanted (model: SimModel): boolean { return model.at !== Infinity && model.record.target > 0 }

  pullStarts (pull: Pull): void {
    this.#pulls++
    const { node, key, model } = pull
    const { trace, transfers } = this.#world
    if (trace.keeps) this.#world.line(key, `${node.name} pulls ${model.cid}/${pull.shard}${pull.urgent ? ' urgently' : ''}`)
    trace.mix(key)
    let have = 0
    for (const other of transfers.active) if (other.key === key && other.node !== node) have++
    if (this.present(key, node) + have < this.#target(model)) this.#needed.add(pull)
    else if (trace.keeps) this.#world.line(key, `  (needless: ${this.present(key, node)} are there, ${have} on their way)`)
  }

  pullEnds (pull: Pull, ok: boolean): void {
    const { stats, trace } = this.#world
    if (trace.keeps) this.#world.line(pull.key, `${pull.node.name} ${ok ? 'has pulled' : 'failed to pull'} ${pull.model.cid}/${pull.shard}`)
    trace.mix(ok ? 1 : 0)
    if (!ok) return
    stats.repairs++
    this.#world.providers[pull.model.index]?.add(pull.node.index)
    if (this.#needed.has(pull)) stats.bytesNeeded += pull.bytes
  }

  moved (pull: Pull, bytes: number): void {
    const { stats } = this.#world
    stats.bytesMoved += bytes
    if (!this.#needed.has(pull) && this.#spreadOffers.has(`${pull.key} ${pull.node.index}`)) stats.bytesSpread += bytes
  }

  /** Copies that count for who sees everything; see above. */
  present (key: Key, without?: SimNode): number {
    const { nodes, now } = this.#world
    const missing: SimNode[] = []
    let there = 0
    for (const node of nodes) {
      if (node === without || !node.disk.keeps(key) || !node.disk.right(key) || node.draining || node.gone || node.lies || node.wedged) continue
      const justBack = node.returnedAt > now - RETURN_UNSEEN_MS && node.life > 1
      if (node.absentSince !== undefined || justBack) missing.push(node)
      else there++
    }
    const grace = there <= 1 ? intended.graceLastCopyMs : there === 2 ? intended.graceTwoCopiesMs : intended.graceDefaultMs
    for (const node of missing) {
      if (node.absentSince === undefined) continue
      const allowed = node.leftInOrder && there >= this.#world.modelAt(key).record.min ? Math.max(REBOOT_MS, grace) : grace
      if (now - node.absentSince < allowed) there++
    }
    return there
  }

  #target (model: SimModel): number {
    const recent = this.#world.now - model.changedAt < POLICY_SPREAD_MS
    return recent ? Math.max(model.record.target, model.before.target) : model.record.target
  }

  saved (node: SimNode, key: Key, committed: boolean): void {
    this.#world.trace.mix(key * 2 + (committed ? 1 : 0))
    if (committed) this.#withinDonation(node, key)
    else if (node.disk.right(key)) this.#mayLetGo(node, key, 'nobody lets go below target')
  }

  #withinDonation (node: SimNode, key: Key): void {
    const { nodes, network } = this.#world
    if (node.lies) return // who lies believes nobody's proof and takes its own copy for the last
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

  /** Whoever lets go leaves as many right, committed copies on others as its policy wants. */
  #mayLetGo (node: SimNode, key: Key, invariant: string): void {
    const { now, nodes } = this.#world
    const model = this.#world.modelAt(key)
    const target = node.replicator?.policyOf(model.cid)?.target ?? 0
    if (target === 0) {
      if (this.wanted(model) && now - model.changedAt > POLICY_SPREAD_MS && model.before.target > 0) this.fail('what is pinned stays pinned', `${node.name} lets go of ${model.cid}/${shardOf(key)}, which is wanted ${model.record.target} times`, key)
      return
    }
    let running = 0
    for (const other of nodes) {
      if (other === node) continue
      const diedNow = now - (other.absentSince ?? -Infinity) < DEATH_UNSEEN_MS
      if (diedNow && other.disk.keptBefore(key)) { running++; continue }
      if (other.gone || !other.disk.keeps(key)) continue
      const wedged = other.wedged && now - other.wedgedAt > ROT_UNSEEN_MS
      const seen = (other.running && !other.hung && !wedged) || diedNow
      const right = other.disk.right(key, now - ROT_UNSEEN_MS) || (other.lies && now - other.liesSince < ROT_UNSEEN_MS)
      if (seen && right) running++
    }
    if (running < target) this.fail(invariant, `${node.name} lets go of ${model.cid}/${shardOf(key)} while ${running} others have it committed and right; target is ${target}`, key)
  }

  noted (node: SimNode, event: ReplicationEvent, key: Key): void {
    if (event.type === 'offered' && event.why === 'spread') {
      const to = this.#world.nodeOf(event.to)
      if (to !== undefined) this.#spreadOffers.add(`${key} ${to.index}`)
    }
    if (event.type === 'committed' && !node.disk.has(key)) this.fail('a commitment is on disk', `${node.name} committed to ${event.model}/${event.shard} without having it`, key)
  }

  /** A copy left a disk: some other right one is somewhere, unless nobody wants it. */
  removed (node: SimNode, key: Key): void {
    const model = this.#world.modelAt(key)
    if (!this.wanted(model)) return
    if (!this.#world.nodes.some(other => !other.gone && other.disk.right(key))) this.fail('no shard is lost', `${node.name} removed the last right copy of ${model.cid}/${shardOf(key)}`, key)
  }

  returns (node: SimNode, absentMs: number): void {
    if (absentMs < SECOND) return
    for (const key of node.disk.committed) this.#returned.set(key, (this.#returned.get(key) ?? 0) + 1)
  }

  /** drainStatus said that nothing is left. */
  drained (node: SimNode): void {
    for (const key of node.disk.keys()) {
      if (node.disk.keeps(key) && node.disk.right(key) && this.wanted(this.#world.modelAt(key))) this.#mayLetGo(node, key, 'a drain ends when all is handed over')
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
        if (this.present(key) < model.record.target || this.present(key, node) < model.record.min) return
      }
    }
    const before = this.#pulls
    const { now } = world
    world.queue.after(REBOOT_MS + REBOOT_AFTER_MS, () => {
      if (world.disturbedAt === now && this.#pulls > before) this.fail('an orderly ten-minute reboot moves nothing', `${this.#pulls - before} pulls began after ${node.name} rebooted`)
    })
  }

  atEnd (): void {
    this.#liveness()
    this.#unpinned()
    this.#rot()
    this.#amounts()
  }

  #liveness (): void {
    const { nodes, models, now } = this.#world
    for (const model of models) {
      if (!this.wanted(model)) continue
      for (let shard = 0; shard < model.shardBytes.length; shard++) {
        const key = keyOf(model.index, shard)
        const bytes = model.shardBytes[shard] as number
        let right = 0
        let room = 0
        let exists = false
        for (const node of nodes) {
          exists ||= node.disk.right(key) && !node.gone
          // Its proofs count for an hour, and nobody can know better; its deputies have to act meanwhile.
          const believed = node.wedged && now - node.wedgedAt < intended.proofTtlMs + WEDGED_UNSEEN_MS
          if ((!node.works && !believed) || node.draining) continue
          if (node.disk.keeps(key) && node.disk.right(key)) right++
          else if (node.works && !node.lies && !node.disk.keeps(key) && this.#donationLeft(node) >= bytes && node.disk.free >= bytes) room++
        }
        this.#world.stats.replicas += right
        if (!exists) this.fail('no shard is lost', `no right copy of ${model.cid}/${shard} is left`, key)
        else if (right < model.record.target && room > 0) this.fail('every shard comes back to target', `${model.cid}/${shard} has ${right} right replicas of ${model.record.target} at the end; ${room} nodes have room`, key)
      }
    }
  }

  #donationLeft (node: SimNode): number {
    let left = node.settings.donateBytes - (node.replicator?.pendingBytes ?? 0)
    for (const key of node.disk.committed) {
      const model = this.#world.modelAt(key)
      if (!node.disk.kept.has(model.index)) left -= model.shardBytes[shardOf(key)] ?? 0
    }
    return left
  }

  #unpinned (): void {
    const { models, nodes, now } = this.#world
    for (const model of models) {
      if (model.at === Infinity || model.record.target > 0 || now - model.changedAt < 30 * MINUTE) continue
      for (const node of nodes) {
        if (!node.works) continue
        for (const key of node.disk.committed) {
          if (this.#world.modelAt(key) === model) this.fail('what is unpinned is let go', `${node.name} is still committed to ${model.cid}/${shardOf(key)}`, key)
        }
      }
    }
  }

  /** Bad content is found within one scrub by whoever has it, and is replaced. */
  #rot (): void {
    const { models, nodes, now } = this.#world
    for (const node of nodes) {
      if (!node.works || node.lies) continue
      for (const key of node.disk.committed) {
        const since = node.disk.rottenSince(key)
        const scrubbed = SCRUB_PERIOD_MS + ROT_MENDED_MS
        if (since !== undefined && since !== Infinity && now - Math.max(since, node.returnedAt) > scrubbed) this.fail('rot is found', `${models[modelIndexOf(key)]?.cid}/${shardOf(key)} has been bad on ${node.name} for ${Math.round((now - since) / MINUTE)} minutes`, key)
      }
    }
  }

  #amounts (): void {
    const { stats, models, nodes, faults } = this.#world
    const shardMax = Math.max(...models.flatMap(model => model.shardBytes))
    for (const model of models) {
      if (!this.wanted(model)) continue
      for (let shard = 0; shard < model.shardBytes.length; shard++) {
        const key = keyOf(model.index, shard)
        const count = nodes.filter(node => node.works && node.disk.keeps(key) && node.disk.right(key) && !node.draining).length
        stats.surplus += Math.max(0, count - model.record.max - (this.#returned.get(key) ?? 0))
      }
    }
    const moved = stats.bytesMoved - stats.bytesSpread
    if (bytesDecided(faults) && moved > BYTES_FACTOR * stats.bytesNeeded + BYTES_RACES * shardMax) {
      this.fail('repair moves at most 1.2 of the least possible', `moved ${moved} bytes, ${stats.bytesNeeded} were needed (${(moved / stats.bytesNeeded).toFixed(2)})`)
    }
    if (!faults.some(fault => SURPLUS_UNDECIDED.includes(fault)) && stats.surplus > Math.max(1, SURPLUS_SHARE * stats.replicas)) {
      this.fail('surplus stays below one per cent', `${stats.surplus} replicas beyond max of ${stats.replicas}`)
    }
  }
}
