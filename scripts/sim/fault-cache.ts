import { randomInt, type Random } from '../../src/base/index.ts'
import { back, healers, pick, say, working } from './fault-tools.ts'
import type { SimNode } from './node.ts'
import { MINUTE, SECOND, shardOf, type Key } from './types.ts'
import type { World } from './world.ts'

/** Those who go have been missed by then. */
const MISSED_MS = MINUTE

/** All who promised a shard reboot at once, and all who happen to have it cached need room just then, at the same moment. */
export function rebootHolders (world: World, random: Random): void {
  const spot = pick(random, working(world).filter(node => !node.lies).flatMap(node => cachedOf(world, node)))
  const ms = 3 * MINUTE + randomInt(random, 5 * MINUTE)
  const wait = MISSED_MS + randomInt(random, MINUTE)
  if (spot === undefined) return
  const { key } = spot
  const holders = working(world).filter(each => each.disk.keeps(key))
  const others = working(world).filter(each => each.disk.has(key) && !holders.includes(each))
  const { cid } = world.modelAt(key)
  say(world, `all who promised ${cid}/${shardOf(key)} reboot for ${Math.round(ms / SECOND)} s, and ${others.map(each => each.name).join(' ')} need all the room there is`)
  world.disturb(1)
  for (const holder of holders) holder.leave()
  world.queue.after(wait, () => { for (const other of others) if (other.works) other.evict(other.disk.used) })
  let over = false
  const finish = (): void => {
    if (over) return
    over = true
    world.disturb(-1)
    for (const holder of holders) back(holder)
  }
  healers.get(world)?.push(finish)
  world.queue.after(ms, finish)
}

function cachedOf (world: World, node: SimNode): Array<{ node: SimNode, key: Key }> {
  return [...node.disk.keys()].filter(key => !node.disk.keeps(key) && node.disk.right(key) && world.checks.wanted(world.modelAt(key))).map(key => ({ node, key }))
}
