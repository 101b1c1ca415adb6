import { randomInt, shuffle, type Random } from '../../src/base/index.ts'
import { back, crash, drain, during, goes, healers, mayGo, outage, pick, say, spares, working } from './fault-tools.ts'
import { HOUR, MINUTE, SECOND, shardOf, type FaultName } from './types.ts'
import { REBOOT_MS } from './checks.ts'
import type { World } from './world.ts'

/** Faults begin when the first model had time to spread. */
const FIRST_MS = 25 * MINUTE
const LIAR_SHARE = 0.15

interface Fault {
  /** Mean time between two. */
  everyMs: number
  run: (world: World, random: Random) => void
}

const faults: Record<FaultName, Fault> = {
  crash: {
    everyMs: 25 * MINUTE,
    run: (world, random) => {
      const [node, ms] = [pick(random, working(world)), outage(random)]
      if (node === undefined) return
      say(world, `${node.name} crashes for ${Math.round(ms / SECOND)} s`)
      crash(world, node, ms)
    }
  },
  'disk-loss': {
    everyMs: 50 * MINUTE,
    run: (world, random) => {
      const [node, ms] = [pick(random, working(world)), outage(random)]
      if (node === undefined || !spares(world, [node], 1)) return
      say(world, `${node.name} crashes for ${Math.round(ms / SECOND)} s and loses its disk`)
      node.disk.wipe()
      crash(world, node, ms)
    }
  },
  loss: {
    everyMs: 50 * MINUTE,
    run: (world, random) => {
      const node = pick(random, working(world))
      if (node === undefined || !mayGo(world, [node])) return
      say(world, `${node.name} is lost for good`)
      goes(world, node)
    }
  },
  slow: {
    everyMs: 40 * MINUTE,
    run: (world, random) => {
      const [node, ms, by] = [pick(random, working(world)), 5 * MINUTE + random.next() * 30 * MINUTE, 10 + random.next() * 200]
      if (node === undefined || node.lagMs > 0) return
      const rate = node.bytesPerSecond
      say(world, `${node.name} is ${by.toFixed()} times slower for ${Math.round(ms / SECOND)} s`)
      const set = (bytesPerSecond: number, lagMs: number): void => {
        node.bytesPerSecond = bytesPerSecond
        node.lagMs = lagMs
        world.transfers.speedChanged(node)
      }
      during(world, ms, () => { set(rate / by, by * 20) }, () => { set(rate, 0) })
    }
  },
  hang: {
    everyMs: 30 * MINUTE,
    run: (world, random) => {
      const [node, kind, ms] = [pick(random, working(world)), random.next(), outage(random)]
      if (node === undefined) return
      const { life } = node
      if (kind < 0.6) {
        say(world, `${node.name} hangs for ${Math.round(ms / SECOND)} s`)
        during(world, ms, () => { node.hang() }, () => {
          if (node.life !== life) return
          world.checks.returns(node, ms)
          node.resume()
        })
      } else if (world.nodes.filter(each => each.wedged).length < 2 && spares(world, [node], 1)) {
        // Stays so until the end: others have to act in its place.
        say(world, `${node.name} answers pings and nothing else from now on`)
        node.wedged = true
        node.wedgedAt = world.now
        world.disturb(1)
      }
    }
  },
  partition: {
    everyMs: 60 * MINUTE,
    run: (world, random) => {
      const [ms, partial, share] = [outage(random), random.next() < 0.4, 0.2 + random.next() * 0.4]
      const side = new Set(shuffle(random, world.nodes.map(node => node.index)).slice(0, Math.round(share * world.nodes.length)))
      const cuts: Array<[number, number]> = []
      for (const a of side) {
        for (const b of world.nodes.keys()) if (!side.has(b) && (!partial || random.next() < 0.5)) cuts.push([a, b], [b, a])
      }
      say(world, `${partial ? 'partial ' : ''}partition of ${[...side].join(' ')} for ${Math.round(ms / SECOND)} s`)
      during(world, ms, () => { for (const [a, b] of cuts) world.network.cut(a, b, true) }, () => {
        for (const [a, b] of cuts) world.network.cut(a, b, false)
        for (const node of world.nodes) world.checks.returns(node, ms)
      })
    }
  },
  'one-way': {
    everyMs: 20 * MINUTE,
    run: (world, random) => {
      const [node, ms, deaf] = [pick(random, world.nodes), outage(random), random.next() < 0.5]
      // A few, never half: who cannot hear has others that do.
      const others = shuffle(random, world.nodes.filter(each => each !== node)).slice(0, 1 + randomInt(random, Math.ceil(world.nodes.length / 4)))
      if (node === undefined) return
      say(world, `nothing gets ${deaf ? 'to' : 'from'} ${node.name} ${deaf ? 'from' : 'to'} ${others.map(each => each.name).join(' ')} for ${Math.round(ms / SECOND)} s`)
      const cut = (on: boolean): void => {
        for (const other of others) world.network.cut(deaf ? other.index : node.index, deaf ? node.index : other.index, on)
      }
      during(world, ms, () => { cut(true) }, () => { cut(false) })
    }
  },
  'message-loss': {
    everyMs: 40 * MINUTE,
    run: (world, random) => {
      const [ms, share] = [5 * MINUTE + random.next() * 30 * MINUTE, 0.01 + random.next() ** 2 * 0.7]
      if (world.network.lossShare > 0) return
      say(world, `${(100 * share).toFixed(1)} % of messages get lost for ${Math.round(ms / SECOND)} s`)
      during(world, ms, () => { world.network.lossShare = share }, () => { world.network.lossShare = 0 })
    }
  },
  reorder: {
    everyMs: 40 * MINUTE,
    run: (world, random) => {
      const [ms, by] = [5 * MINUTE + random.next() * 30 * MINUTE, random.next() * 20 * SECOND]
      if (world.network.reorderMs > 0) return
      during(world, ms, () => { world.network.reorderMs = by }, () => { world.network.reorderMs = 0 })
    }
  },
  replay: {
    everyMs: 40 * MINUTE,
    run: (world, random) => {
      const [ms, share] = [5 * MINUTE + random.next() * 30 * MINUTE, 0.02 + random.next() * 0.2]
      if (world.network.replayShare > 0) return
      during(world, ms, () => { world.network.replayShare = share }, () => { world.network.replayShare = 0 })
    }
  },
  'full-disk': {
    everyMs: 40 * MINUTE,
    run: (world, random) => {
      const [node, ms, readOnly] = [pick(random, working(world)), 5 * MINUTE + random.next() * 40 * MINUTE, random.next() < 0.5]
      if (node === undefined || node.disk.foreign > 0) return
      say(world, `${node.name} has a full disk for ${Math.round(ms / SECOND)} s`)
      during(world, ms, () => { node.disk.foreign = node.disk.capacity; node.readOnly = readOnly }, () => { node.disk.foreign = 0; node.readOnly = false })
    }
  },
  rot: {
    everyMs: 15 * MINUTE,
    run: (world, random) => {
      const node = pick(random, working(world))
      const key = pick(random, [...(node?.disk.keys() ?? [])])
      if (node === undefined || key === undefined || node.lies || !node.disk.right(key)) return
      // Two right ones have to stay: rot is not seen before the next proof, and may meet a trim until then.
      if (world.nodes.filter(other => other !== node && other.works && other.disk.right(key)).length < 2) return
      say(world, `${world.modelAt(key).cid}/${shardOf(key)} rots on ${node.name}`)
      node.disk.rot(key, world.now)
      world.disturb(0)
      const scrub = (): void => {
        if (!node.disk.has(key) || node.disk.right(key)) return
        if (node.works && !node.lies) node.loses(key, 'scrub')
        else world.queue.after(10 * MINUTE, scrub)
      }
      world.queue.after(random.next() * (world.plant?.scrubMs ?? node.settings.scrubPeriodMs), scrub)
    }
  },
  liar: {
    everyMs: HOUR,
    run: (world, random) => {
      const node = pick(random, working(world))
      if (node === undefined || world.nodes.filter(each => each.lies).length + 1 > world.nodes.length * LIAR_SHARE || !spares(world, [node], 2)) return
      say(world, `${node.name} begins to lie`)
      node.lies = true
      node.liesSince = world.now
      for (const key of node.disk.keys()) node.disk.rot(key, world.now)
      world.disturb(1)
    }
  },
  // Set at the start (world.ts), for all nodes and all the time.
  skew: { everyMs: Infinity, run: () => {} },
  // Newcomers are there from the start and begin later (world.ts).
  join: { everyMs: Infinity, run: () => {} },
  leave: {
    everyMs: 60 * MINUTE,
    run: (world, random) => {
      const node = pick(random, working(world))
      if (node === undefined || !mayGo(world, [node])) return
      say(world, `${node.name} leaves and does not come back`)
      node.leave()
      goes(world, node)
    }
  },
  'domain-loss': {
    everyMs: 80 * MINUTE,
    run: (world, random) => {
      const [zone, ms, forGood] = [pick(random, [...new Set(world.nodes.map(node => node.labels['zone']))]), outage(random), random.next() < 0.4]
      const victims = world.nodes.filter(node => node.running && node.labels['zone'] === zone)
      if (forGood && mayGo(world, victims)) {
        say(world, `zone ${zone} is lost for good`)
        for (const node of victims) goes(world, node)
      } else {
        say(world, `zone ${zone} is gone for ${Math.round(ms / SECOND)} s`)
        for (const node of victims) crash(world, node, ms + random.next() * MINUTE)
      }
    }
  },
  drain: {
    everyMs: 50 * MINUTE,
    run: (world, random) => {
      const node = pick(random, working(world).filter(each => !each.draining))
      if (node === undefined || !mayGo(world, [node])) return
      drain(world, node)
    }
  },
  pin: {
    everyMs: 40 * MINUTE,
    run: (world, random) => {
      const [model, target, off] = [pick(random, world.models.filter(each => each.at !== Infinity)), 2 + randomInt(random, 3), random.next() < 0.2]
      const node = world.nodes[model?.publisher ?? -1]
      if (model === undefined || node?.works !== true || node.replicator?.policyOf(model.cid) === undefined || world.now - model.changedAt < 15 * MINUTE) return
      // After a loss of the disk there may be nothing here to pin.
      if (model.shardBytes.some((_, shard) => !node.disk.heldOf(model).includes(shard))) return
      world.publish(node, model, off ? { min: 0, target: 0, max: 0 } : { min: Math.min(2, target), target, max: target + 1 })
    }
  },
  reboot: {
    everyMs: 45 * MINUTE,
    run: (world, random) => {
      const [node, ms] = [pick(random, working(world)), (0.2 + 0.8 * random.next()) * REBOOT_MS]
      if (node === undefined) return
      say(world, `${node.name} reboots for ${Math.round(ms / SECOND)} s`)
      world.checks.reboots(node)
      world.disturb(0)
      node.leave()
      const start = (): void => { back(world, node) }
      healers.get(world)?.push(start)
      world.queue.after(ms, start)
    }
  }
}

export function scheduleFaults (world: World): void {
  healers.set(world, [])
  for (const name of world.faults) {
    const random = world.random(`fault ${name}`)
    const { everyMs, run } = faults[name]
    if (everyMs === Infinity) continue
    // Half of the mean for sure, the other half as chance has it: two of the same kind seldom meet.
    for (let at = FIRST_MS + random.next() * 15 * MINUTE; at < world.faultsEndAt; at += everyMs / 2 + random.next() * everyMs) {
      world.queue.at(at, () => { run(world, random) })
    }
  }
}

/** The safety phase ends: whatever can come back does. Liars and the wedged stay as they are. */
export function healAll (world: World): void {
  say(world, 'the faults end')
  for (const finish of healers.get(world) ?? []) finish()
  world.network.healAll()
  world.network.refresh()
}
