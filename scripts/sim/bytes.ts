import { defaultReplication as intended } from '../../src/replication/settings.ts'
import { REBOOT_MS } from './checks.ts'
import type { SimNode } from './node.ts'
import type { Pull } from './transfer.ts'
import { MINUTE, SECOND, shardOf, type Excuse, type Key, type SimModel } from './types.ts'
import type { World } from './world.ts'

/** Who came back so short ago may not be known to be back. */
const RETURN_UNSEEN_MS = 90 * SECOND
/** Who was first told of a shard by somebody cut off from others that hold it asks the DHT for them, this often. */
const FOUND_MS = 11 * MINUTE
/** A policy takes this long to reach every holder. */
export const POLICY_SPREAD_MS = 10 * MINUTE
/** What was proven before a cut between two counts at least for so long: the next proof is asked for at half of its time, at the earliest. */
const VOUCHED_MS = 20 * MINUTE
/** Doubts of who was not heard while messages got lost: as long as a failed challenge may go without the next. */
const LOSS_DOUBT_MS = 2 * MINUTE
/** Of messages: below this two challenges in a row seldom fail. */
const LOSS_DOUBTFUL = 0.05

/** Who take a shard at the same moment do not know of each other. */
const RACES = 2

/** A pull that takes longer is taken for stuck when it brings the companion of a last copy. */
function stuckMs (bytes: number): number { return MINUTE + bytes / 10_000 }

/**
 * Least possible bytes. A pull is needed if, when it starts, fewer copies than the target exist or are on their way that
 * an observer who sees everything would count: committed, content right, on a node that is there or has been missing
 * for no longer than the grace for what is left, and that neither drains nor is wedged. Each such deficit takes one copy,
 * so what is needed is the bytes of the needed pulls that ended well. Counted apart: moves for the spread over domains, and what
 * mends a copy that the node's user keeps, published or pinned there, however many others there are (seed 5036).
 *
 * Everything else was moved for nothing, and has to be next to nothing under every fault. A node is excused, pull by pull, for
 * what it could not know or help at that moment, and for no more:
 * - cut: the observer is who had the shard pulled, in its own part of the network. What it cannot hear, and not all it could ask can, is
 *   missing since it was cut off, with the same graces; so each side of a partition may bring back its own target, and nothing beyond that.
 * - liar: who lies sees all proofs of others fail, and what it sends is wrong, which is seen when it is here.
 * - message-loss: while more than a few in a hundred get lost, or a moment ago.
 * - slow: a party of this pull is slow; or of one of the same shard that was under way, and has been for so long that it is taken for stuck.
 * - full-disk: the disk filled after the offer was accepted, or the ledger does not take what was promised.
 */
export class Bytes {
  readonly #world: World
  readonly #spreadOffers = new Set<string>()
  /** Each pull under way: needed, or excused by this, or for the spread, or for the node's own user; undefined: for nothing. */
  readonly #why = new Map<Pull, Excuse | 'needed' | 'spread' | 'own' | undefined>()
  readonly #moved = new Map<Pull, number>()
  pulls = 0

  constructor (world: World) { this.#world = world }

  spread (key: Key, to: SimNode): void { this.#spreadOffers.add(`${key} ${to.index}`) }

  starts (pull: Pull): void {
    this.pulls++
    const { node, key, model } = pull
    const { trace } = this.#world
    if (trace.keeps) this.#world.line(key, `${node.name} pulls ${model.cid}/${pull.shard}${pull.urgent ? ' urgently' : ''}`)
    trace.mix(key)
    if (!node.disk.committed.has(key) && pull.bytes > node.disk.free) {
      this.#world.checks.fail('nobody takes what it has no room for', `${node.name} has ${node.disk.free} bytes free and fetches ${model.cid}/${pull.shard} of ${pull.bytes}`, key)
    }
    const why = this.#judge(pull)
    this.#why.set(pull, why)
    this.#moved.set(pull, 0)
    if (trace.keeps && why !== 'needed') this.#world.line(key, `  (not needed: ${this.present(key, node)} are there, ${this.#onTheirWay(pull)} on their way${why === undefined ? '' : `; ${why}`})`)
  }

  moved (pull: Pull, bytes: number): void {
    this.#world.stats.bytesMoved += bytes
    this.#moved.set(pull, (this.#moved.get(pull) ?? 0) + bytes)
  }

  /** `ok` undefined: it was broken off. */
  ends (pull: Pull, ok: boolean | undefined): void {
    const { stats, trace, providers } = this.#world
    if (trace.keeps) this.#world.line(pull.key, `${pull.node.name} ${ok === true ? 'has pulled' : ok === undefined ? 'breaks off' : 'failed to pull'} ${pull.model.cid}/${pull.shard}`)
    trace.mix(ok === true ? 1 : 0)
    let moved = this.#moved.get(pull) ?? 0
    let why = this.#why.get(pull)
    this.#why.delete(pull)
    this.#moved.delete(pull)
    if (ok === true) {
      stats.repairs++
      providers[pull.model.index]?.add(pull.node.index)
    }
    if (ok === true) this.#piledUp(pull)
    if (why === 'spread') { stats.bytesSpread += moved; return }
    if (why === 'own') { stats.bytesOwn += moved; return }
    if (why === 'needed' && ok === true && pull.node.disk.committed.has(pull.key)) {
      stats.bytesNeeded += pull.bytes
      moved -= pull.bytes
      why = undefined
    }
    if (why === undefined || why === 'needed') why = this.#failedFor(pull)
    if (why === undefined) stats.bytesWasted += moved
    else stats.bytesExcused[why] += moved
    if (trace.keeps && moved > 0) this.#world.line(pull.key, `  (${moved} bytes for nothing: ${why ?? 'waste'})`)
  }

  /** Whatever who offers believes, who takes counts what others claim, and takes no more than twice the most there should be. */
  #piledUp ({ key, node, model }: Pull): void {
    const { nodes, now, checks, network } = this.#world
    // What others claim gets lost as well, and a liar counts nobody.
    if (this.#isLossy() || node.lies || !node.disk.committed.has(key) || now - model.changedAt < POLICY_SPREAD_MS) return
    const others = nodes.filter(other => other.works && other.disk.keeps(key) && other.disk.right(key) && !other.draining && network.hidden(node.index, other.index, now - FOUND_MS) === undefined)
    // Behind a cut the policy before the last may be the newest it can know.
    const max = Math.max(model.policy.max, node.replicator?.policyOf(model.cid)?.max ?? 0)
    if (others.length > 2 * max + RACES) checks.fail('copies do not pile up', `${node.name} is the ${others.length}th to hold ${model.cid}/${shardOf(key)}; at most ${max} are wanted`, key)
  }

  /** What is under way when the simulation ends and nobody needs. */
  atEnd (): void {
    const { stats } = this.#world
    for (const [pull, why] of this.#why) {
      const moved = this.#moved.get(pull) ?? 0
      if (why === undefined) stats.bytesWasted += moved
      else if (why === 'spread') stats.bytesSpread += moved
      else if (why === 'own') stats.bytesOwn += moved
      else if (why !== 'needed') stats.bytesExcused[why] += moved
    }
  }

  /**
   * Copies that count: for who sees everything, or for `observer`, to whom those behind a cut are missing since then.
   * `without`: somebody who does not count here.
   */
  present (key: Key, without?: SimNode, observer?: SimNode): number {
    const { nodes, now } = this.#world
    const { min } = this.#world.modelAt(key).policy
    const missing: Array<{ since: number, orderly: boolean }> = []
    let there = 0
    for (const node of nodes) {
      if (node === without || !node.disk.keeps(key) || !node.disk.right(key) || node.draining || node.gone || node.lies || node.wedged) continue
      const justBack = node.returnedAt > now - RETURN_UNSEEN_MS && node.life > 1
      const hiddenSince = observer === undefined ? undefined : this.#hiddenSince(observer, node, key)
      if (hiddenSince !== undefined) missing.push({ since: Math.min(hiddenSince, node.absentSince ?? Infinity), orderly: false })
      else if (node.absentSince !== undefined) missing.push({ since: node.absentSince, orderly: node.leftInOrder })
      else if (!justBack) there++
    }
    const grace = there <= 1 ? intended.graceLastCopyMs : there === 2 ? intended.graceTwoCopiesMs : intended.graceDefaultMs
    for (const { since, orderly } of missing) {
      const allowed = orderly && there >= min ? Math.max(REBOOT_MS, grace) : grace
      if (now - since < allowed) there++
    }
    return there
  }

  /** Since when `node` has been behind a cut for `observer`, or for who would have told it of that node. */
  #hiddenSince (observer: SimNode, node: SimNode, key: Key): number | undefined {
    const { network, nodes, now } = this.#world
    if (node === observer) return undefined
    const direct = network.hidden(observer.index, node.index, now - RETURN_UNSEEN_MS)
    const before = direct !== undefined && observer.startedAt < direct && (observer.tookAt.get(key) ?? Infinity) < direct
    // A cut between two is no death as long as another hears both, and what was proven before it counts for a while.
    if (direct !== undefined && !(before && now - direct < VOUCHED_MS && this.#vouched(observer, node))) return direct
    let since: number | undefined
    for (const other of nodes) {
      if (other === node || other === observer || !other.disk.has(key)) continue
      const between = network.hidden(other.index, node.index, now - FOUND_MS)
      if (between !== undefined) since = Math.min(since ?? Infinity, between)
    }
    // It knew of the node before, unless it is new to the shard itself.
    return since !== undefined && (observer.tookAt.get(key) ?? -Infinity) > since ? since : undefined
  }

  /** Three of those whom the observer can ask are asked; so all who know the node have to hear it. */
  #vouched (observer: SimNode, node: SimNode): boolean {
    const { network, nodes } = this.#world
    const asked = nodes.filter(each => observer.watched.has(each.index) && each.watched.has(node.index) && network.good(observer.index, each.index))
    return node.answers && asked.length > 0 && asked.every(({ index }) => network.good(node.index, index))
  }

  #onTheirWay ({ key, node }: Pull, observer?: SimNode): number {
    const { transfers, network, now } = this.#world
    let count = 0
    for (const other of transfers.active) {
      if (other.key !== key || other.node === node) continue
      if (observer === undefined || network.hidden(observer.index, other.node.index, now - RETURN_UNSEEN_MS) === undefined) count++
    }
    return count
  }

  #judge (pull: Pull): Excuse | 'needed' | 'spread' | 'own' | undefined {
    const { key, node, model } = pull
    const { nodes, transfers, now } = this.#world
    const target = this.#target(model)
    if (this.present(key, node) + this.#onTheirWay(pull) < target) return 'needed'
    if (this.#spreadOffers.has(`${key} ${node.index}`)) return 'spread'
    if (node.disk.committed.has(key) && node.disk.kept.has(model.index)) return 'own'
    // A promise is mended by who made it; anything else is pulled because somebody offered it, and is the first source.
    const observer = node.disk.committed.has(key) ? node : nodes[pull.sources[0] ?? -1] ?? node
    if (observer.lies) return 'liar'
    if (this.present(key, node, observer) + this.#onTheirWay(pull, observer) < target) return 'cut'
    if (this.#isLossy()) return 'message-loss'
    for (const other of transfers.active) if (other.key === key && now - other.startedFirstAt > stuckMs(pull.bytes) && this.#isSlow(other)) return 'slow'
    return undefined
  }

  /** Bytes of a pull that came to nothing, or of its earlier tries. */
  #failedFor (pull: Pull): Excuse | undefined {
    const { node, startedFirstAt } = pull
    if (node.lies || pull.tried.some(index => this.#world.nodes[index]?.lies === true)) return 'liar'
    if (node.fullAt >= startedFirstAt || node.readOnly) return 'full-disk'
    if (this.#isSlow(pull)) return 'slow'
    return pull.wasCut ? 'cut' : undefined
  }

  #isLossy (): boolean {
    const { network, now } = this.#world
    return network.lossShare > LOSS_DOUBTFUL || now - network.lossyUntil < LOSS_DOUBT_MS
  }

  #isSlow (pull: Pull): boolean {
    const slow = (node: SimNode | undefined): boolean => node !== undefined && (node.lagMs > 0 || node.slowUntil > pull.startedFirstAt)
    return slow(pull.node) || pull.tried.some(index => slow(this.#world.nodes[index]))
  }

  #target (model: SimModel): number {
    const recent = this.#world.now - model.changedAt < POLICY_SPREAD_MS
    return recent ? Math.max(model.policy.target, model.before.target) : model.policy.target
  }
}
