import { randomInt, type Random } from '../../src/base/index.ts'
import type { SimNode } from './node.ts'
import { HOUR, MINUTE, SECOND, shardOf, type Key, type SimModel } from './types.ts'
import type { World } from './world.ts'

/** Machines that are gone for good: never so many that capacity goes with them. */
const GONE_SHARE = 0.35

export function pick<T> (random: Random, items: readonly T[]): T | undefined {
  return items[randomInt(random, Math.max(1, items.length))]
}

export function working (world: World): SimNode[] { return world.nodes.filter(node => node.works) }

/** Some are shorter than any grace, some between, some longer than all. */
export function outage (random: Random): number {
  const kind = random.next()
  if (kind < 0.3) return 5 * SECOND + random.next() * MINUTE
  if (kind < 0.7) return MINUTE + random.next() * 8 * MINUTE
  return 12 * MINUTE + random.next() * 40 * MINUTE
}

/** Would every shard keep right copies on `left` other working machines? Faults may not take what no algorithm could save. */
export function spares (world: World, victims: readonly SimNode[], left: number, only?: SimModel): boolean {
  for (const victim of victims) {
    if (!isWordOut(world, victim, { victims, only })) {
      world.stats.spared++
      return false
    }
    for (const key of victim.disk.keys()) {
      const model = world.modelAt(key)
      if ((only !== undefined && model !== only) || !world.checks.wanted(model) || !victim.disk.right(key)) continue
      let others = 0
      // Who has lost its ledger may not know that anybody wants what it has, and those who could tell it may be the victims.
      for (const node of world.nodes) if (node.works && !victims.includes(node) && node.disk.right(key) && node.disk.ledgerLostAt === undefined) others++
      if (others < left) {
        world.stats.spared++
        return false
      }
    }
  }
  return true
}

/**
 * Does somebody else know all that this one knows of what publishers want? A word is with others after a tick or two (seed 7006), or after the cut
 * behind which it was spoken (600005 of all faults): what is lost before, nobody can know.
 */
function isWordOut (world: World, victim: SimNode, { victims, only }: { victims: readonly SimNode[], only: SimModel | undefined }): boolean {
  for (const [key, { model: cid, publisher, sequence }] of victim.disk.policies) {
    const model = world.modelOf(cid)
    if (model === undefined || (only !== undefined && model !== only) || model.records.get(publisher)?.sequence !== sequence) continue
    if (!world.nodes.some(node => node.works && !node.lies && !victims.includes(node) && node.disk.policies.get(key)?.sequence === sequence)) return false
  }
  return true
}

export function mayGo (world: World, victims: readonly SimNode[]): boolean {
  const gone = world.nodes.filter(node => node.gone).length + victims.length
  return gone <= world.nodes.length * GONE_SHARE && spares(world, victims, 1)
}

export function say (world: World, text: string): void {
  if (world.trace.keeps) world.line(undefined, `** ${text}`)
}

/** Bad content is found by the scrub within this time, or when a proof is asked for. Two right ones have to stay elsewhere: it may meet a trim until then. */
export function rots (world: World, { node, key, withinMs }: { node: SimNode, key: Key, withinMs: number }): boolean {
  if (node.lies || !node.disk.right(key) || world.nodes.filter(other => other !== node && other.works && other.disk.right(key)).length < 2) return false
  say(world, `${world.modelAt(key).cid}/${shardOf(key)} rots on ${node.name}`)
  world.disturb(0)
  node.disk.rot(key, world.now, world.random(`place ${key} ${node.index} ${world.now}`).next())
  const scrub = (): void => {
    if (!node.disk.has(key) || node.disk.right(key)) return
    if (node.works && !node.lies) node.finds(key)
    else world.queue.after(10 * MINUTE, scrub)
  }
  world.queue.after(world.random(`scrub ${key} ${node.index} ${world.now}`).next() * withinMs, scrub)
  return true
}

/** Both ends change the view; only the time between counts as disturbed. */
export function during (world: World, ms: number, begin: () => void, end: () => void): void {
  world.disturb(1)
  begin()
  let over = false
  const finish = (): void => {
    if (over) return
    over = true
    end()
    world.disturb(-1)
    world.network.refresh()
  }
  world.network.refresh()
  healers.get(world)?.push(finish)
  world.queue.after(ms, finish)
}

/** Ends of faults that are still at work when the safety phase ends. */
export const healers = new WeakMap<World, Array<() => void>>()

export function back (node: SimNode): void {
  if (node.running || node.gone) return
  node.start()
}

export function crash (world: World, node: SimNode, ms: number): void {
  during(world, ms, () => { node.stop() }, () => { back(node) })
}

export function goes (world: World, node: SimNode): void {
  world.disturb(0)
  node.gone = true
  node.stop()
  node.disk.wipe()
}

/** A patient one goes on until it is done, also when the faults have ended; else it is called off after an hour. */
export function drain (world: World, node: SimNode, patient: boolean): void {
  const { life } = node
  say(world, `${node.name} drains`)
  world.disturb(1)
  node.drainAsked = true
  let over = false
  const end = (): void => {
    if (over) return
    over = true
    world.disturb(-1)
    if (node.life === life && node.works) {
      say(world, `${node.name} drains no more`)
      node.drainAsked = false
      node.replicator?.drain(node.draining, node.local(world.now))
    }
  }
  if (!patient) healers.get(world)?.push(end)
  node.replicator?.drain(true, node.local(world.now))
  const poll = (): void => {
    if (over) return
    if (node.life !== life) return end()
    if (!node.works) return world.queue.after(30 * SECOND, poll)
    if (node.replicator?.drainStatus(node.local(world.now)).left.length === 0) {
      world.checks.drained(node)
      say(world, `${node.name} is drained and goes`)
      over = true
      world.disturb(-1)
      // What the check found sufficient may rest on copies that others hold while they are away.
      if (spares(world, [node], 1)) { node.leave(); goes(world, node) }
      else { over = false; world.disturb(1); end() }
      return
    }
    world.queue.after(30 * SECOND, poll)
  }
  world.queue.after(10 * SECOND, poll)
  if (!patient) world.queue.after(HOUR, end)
}
