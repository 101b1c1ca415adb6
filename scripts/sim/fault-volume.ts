import type { Random } from '../../src/base/index.ts'
import { back, healers, pick, rots, say } from './fault-tools.ts'
import type { SimNode } from './node.ts'
import { MINUTE } from './types.ts'
import type { World } from './world.ts'

/** A volume that fails for so long without being found out was read too seldom. */
const GIVES_UP_MS = 90 * MINUTE
/** Reads of what is served, and of proofs, find what a slow scrub does not. */
const FOUND_MS = 10 * MINUTE
const OFF_MS = 2 * MINUTE

/** Shard after shard rots on this volume, until it is found out; then somebody looks at the disk and starts the node again, or nobody does. */
export function failVolume (world: World, { node, random, paceMs, looksAfterMs }: { node: SimNode, random: Random, paceMs: number, looksAfterMs: number | undefined }): void {
  say(world, `the volume of ${node.name} begins to fail`)
  world.disturb(1)
  const until = Math.min(world.faultsEndAt, world.now + GIVES_UP_MS)
  const step = (): void => {
    if (node.gone || world.now >= until || node.volume.suspect) {
      world.disturb(-1)
      say(world, `the volume of ${node.name} fails no more${node.volume.suspect ? ', and is suspect' : ''}`)
      if (node.volume.suspect && looksAfterMs !== undefined) world.queue.after(looksAfterMs, () => { replace(world, node) })
      return
    }
    const key = pick(random, [...node.disk.keys()].filter(each => node.disk.right(each)))
    if (node.works && key !== undefined) rots(world, { node, key, withinMs: Math.min(FOUND_MS, node.settings.scrubPeriodMs) })
    world.queue.after(paceMs, step)
  }
  step()
}

function replace (world: World, node: SimNode): void {
  if (!node.works || !node.volume.suspect || world.now >= world.faultsEndAt) return
  say(world, `${node.name} is started again, its disk looked at`)
  node.leave()
  const start = (): void => { back(node) }
  healers.get(world)?.push(start)
  world.queue.after(OFF_MS, start)
}
