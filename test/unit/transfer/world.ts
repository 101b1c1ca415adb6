import { MiB, seededRandom, type Random } from '../../../src/base/index.ts'
import { Scheduler, type SchedulerAction } from '../../../src/transfer/scheduler.ts'

/** How a simulated node behaves. Rates in bytes a second, times in milliseconds from the start. */
export interface Behaviour {
  up: number
  down?: number
  /** Holds these blocks from the start; default none. */
  holds?: (block: number) => boolean
  /** Loads what it lacks. */
  loads?: boolean
  /** Joins, and leaves for good. */
  joinsAt?: number
  leavesAt?: number
  /** Sends nothing from this time on, without a word. */
  stallsAt?: number
  /** Stalls when one of its clients lacks only this many blocks. */
  stallsWhenLeft?: number
  /** Is heard of all the time, and sends nothing that it is asked for. */
  chatters?: boolean
  /** Claims all blocks; says "not here" for those it lacks. */
  claims?: boolean
  /** Sends bytes that do not match, always. */
  corrupts?: boolean
}

export interface WorldInit {
  seed: number
  sizes: number[]
  nodes: Behaviour[]
  order?: 'rarest' | 'sequential'
  requestTimeoutMs?: number
  /** From the last byte of a block until it is recorded, and from there until others know. */
  recordMs?: number
  announceMs?: number
  latencyMs?: number
  /** Clients that a server sends to at a time, a block each, while they can take all it has; default all. */
  concurrency?: number
}

interface Request { block: number, sent: number, at: number }

const STEP_MS = 10
const PLAN_MS = 100

/** A node of the world. Loaders have a scheduler; everybody serves. */
export class SimNode {
  readonly id: number
  readonly behaviour: Behaviour
  readonly blocks: Uint8Array
  readonly scheduler: Scheduler | undefined
  /** This loader's handle of each peer, by node id, and back. */
  readonly handles = new Map<number, number>()
  readonly nodes = new Map<number, number>()
  readonly banned = new Set<number>()
  /** What each client has asked for, in order. */
  readonly queues = new Map<number, Request[]>()
  /** When each client got its last block. */
  readonly servedAt = new Map<number, number>()
  sentBytes = 0
  receivedBytes = 0
  wastedBytes = 0
  doneAt: number | undefined
  gone = false

  constructor (id: number, behaviour: Behaviour, init: WorldInit, random: Random) {
    this.id = id
    this.behaviour = behaviour
    if (init.sizes.every((_, block) => behaviour.holds?.(block))) this.doneAt = 0
    this.blocks = Uint8Array.from(init.sizes, (_, block) => behaviour.holds?.(block) === true ? 1 : 0)
    if (behaviour.loads !== true) return
    this.scheduler = new Scheduler({ sizes: Uint32Array.from(init.sizes), order: init.order ?? 'rarest', random, self: hash(id), requestTimeoutMs: init.requestTimeoutMs ?? 10_000 })
    for (let block = 0; block < init.sizes.length; block++) {
      if (this.blocks[block] === 1) this.scheduler.here(block)
      else this.scheduler.want(block)
    }
  }

  has (block: number): boolean { return this.blocks[block] === 1 }
}

function hash (id: number): number { return Math.imul(id + 1, 0x9e37_79b1) >>> 0 }

/**
 * Nodes with links of given rates, in virtual time. A server shares its uplink evenly among the clients that wait; bytes
 * arrive at once but requests take a latency. The schedulers are the real ones.
 */
export class World {
  readonly nodes: SimNode[]
  readonly init: WorldInit
  /** Blocks in the order in which loader 0 got them, with the time. */
  readonly arrivals: Array<{ block: number, at: number }> = []
  now = 0
  /** Called with each loader's actions, for invariants. */
  onActions: ((node: SimNode, actions: SchedulerAction[]) => void) | undefined
  readonly #later: Array<{ at: number, run: () => void }> = []

  constructor (init: WorldInit) {
    this.init = init
    const random = seededRandom(init.seed)
    this.nodes = init.nodes.map((behaviour, id) => new SimNode(id, behaviour, init, random))
    for (const node of this.nodes) {
      const { joinsAt = 0, leavesAt } = node.behaviour
      this.#at(joinsAt, () => { this.#join(node) })
      if (leavesAt !== undefined) this.#at(leavesAt, () => { this.#leave(node) })
    }
  }

  get loaders (): SimNode[] { return this.nodes.filter(node => node.scheduler !== undefined && !node.gone) }
  get bytes (): number { return this.init.sizes.reduce((sum, size) => sum + size, 0) }

  /** Runs until all loaders that stay are done, or `untilMs`. Says whether they are. */
  run (untilMs: number, each: () => void = () => undefined): boolean {
    while (this.now < untilMs) {
      this.step()
      each()
      if (this.loaders.every(node => node.doneAt !== undefined)) return true
    }
    return false
  }

  step (): void {
    this.now += STEP_MS
    this.#later.sort((a, b) => a.at - b.at)
    while (this.#later[0] !== undefined && this.#later[0].at <= this.now) this.#later.shift()?.run()
    const down = new Map(this.nodes.map(node => [node.id, (node.behaviour.down ?? Infinity) * STEP_MS / 1000]))
    for (const server of this.nodes) this.#serve(server, down)
    if (this.now % PLAN_MS === 0) for (const node of this.loaders) this.plan(node)
  }

  plan (node: SimNode): void {
    const actions = node.scheduler?.plan(this.now) ?? []
    this.onActions?.(node, actions)
    for (const action of actions) {
      const server = this.nodes[node.nodes.get(action.peer) ?? -1]
      if (server === undefined) throw new Error(`an action for peer ${action.peer}, which is not there`)
      const queue = server.queues.get(node.id) ?? []
      server.queues.set(node.id, queue)
      if (action.type === 'request') {
        if (queue.some(({ block }) => block === action.block)) throw new Error(`node ${server.id} is asked twice for block ${action.block}`)
        queue.push({ block: action.block, sent: 0, at: this.now + (this.init.latencyMs ?? 1) })
      } else if (action.type === 'cancel') {
        const at = queue.findIndex(({ block }) => block === action.block)
        if (at >= 0) node.wastedBytes += queue.splice(at, 1)[0]?.sent ?? 0
      } else {
        this.#part(node, server)
      }
    }
  }

  #at (at: number, run: () => void): void { this.#later.push({ at, run }) }

  #join (node: SimNode): void {
    for (const other of this.nodes) {
      if (other === node || other.gone || (other.behaviour.joinsAt ?? 0) > this.now) continue
      if (node.scheduler !== undefined) this.#meet(node, other)
      if (other.scheduler !== undefined) this.#meet(other, node)
    }
  }

  #meet (loader: SimNode, other: SimNode): void {
    const { scheduler } = loader
    if (scheduler === undefined || loader.handles.has(other.id)) return
    const handle = scheduler.addPeer(hash(other.id), this.now)
    loader.handles.set(other.id, handle)
    loader.nodes.set(handle, other.id)
    if (other.behaviour.claims === true || other.blocks.every(held => held === 1)) scheduler.fillBlocks(handle)
    else other.blocks.forEach((held, block) => { if (held === 1) scheduler.setBlock(handle, block, true) })
    this.plan(loader)
  }

  #leave (node: SimNode): void {
    node.gone = true
    for (const other of this.nodes) { this.#part(other, node); this.#part(node, other) }
  }

  #part (loader: SimNode, server: SimNode): void {
    const handle = loader.handles.get(server.id)
    if (handle === undefined) return
    loader.scheduler?.removePeer(handle)
    loader.handles.delete(server.id)
    for (const { sent } of server.queues.get(loader.id) ?? []) loader.wastedBytes += sent
    server.queues.delete(loader.id)
    if (!loader.gone) this.plan(loader)
  }

  #serve (server: SimNode, down: Map<number, number>): void {
    const { up, stallsAt = Infinity, stallsWhenLeft = -1 } = server.behaviour
    if (server.gone || this.now >= stallsAt) return
    if (server.behaviour.chatters === true) {
      for (const client of this.loaders) client.scheduler?.heard(client.handles.get(server.id) ?? 0, this.now)
      return
    }
    let budget = up * STEP_MS / 1000
    const waiting = [...server.queues].filter(([, queue]) => (queue[0]?.at ?? Infinity) <= this.now).map(([id]) => this.nodes[id] as SimNode)
    for (const client of waiting) client.scheduler?.heard(client.handles.get(server.id) ?? 0, this.now)
    const line = this.#turns(server, waiting)
    // Those whose turn it is share evenly; what they cannot take goes to the next in line.
    for (let at = 0; at < line.length && budget >= 1;) {
      let clients = line.slice(at, at + (this.init.concurrency ?? line.length))
      at += clients.length
      while (budget >= 1 && clients.length > 0) {
        const share = budget / clients.length
        const next: SimNode[] = []
        for (const client of clients) {
          if ((client.scheduler?.missing ?? 0) <= stallsWhenLeft) continue
          const room = Math.floor(Math.min(share, down.get(client.id) ?? 0))
          const sent = room < 1 ? 0 : this.#send(server, client, room)
          budget -= sent
          down.set(client.id, (down.get(client.id) ?? 0) - sent)
          if (sent === room && room >= 1) next.push(client)
        }
        if (next.length === clients.length) return
        clients = next
      }
    }
  }

  /** In the order of their turns: those in the middle of a block, then who waited longest. */
  #turns (server: SimNode, clients: SimNode[]): SimNode[] {
    const begun = (client: SimNode): number => (server.queues.get(client.id)?.[0]?.sent ?? 0) > 0 ? 1 : 0
    return clients.sort((a, b) => begun(b) - begun(a) || (server.servedAt.get(a.id) ?? 0) - (server.servedAt.get(b.id) ?? 0))
  }

  /** Up to `room` bytes of what the client asked for; returns how many. */
  #send (server: SimNode, client: SimNode, room: number): number {
    let left = room
    for (;;) {
      const queue = server.queues.get(client.id)
      const request = queue?.[0]
      const handle = client.handles.get(server.id)
      if (queue === undefined || request === undefined || handle === undefined || request.at > this.now) return room - left
      const size = this.init.sizes[request.block] ?? 0
      if (!server.has(request.block)) {
        queue.shift()
        client.scheduler?.failed(handle, request.block)
        client.scheduler?.setBlock(handle, request.block, false)
        this.plan(client)
        continue
      }
      if (left === 0) return room
      if (request.sent === 0) client.scheduler?.started(handle, request.block, this.now)
      const bytes = Math.min(left, size - request.sent)
      left -= bytes
      request.sent += bytes
      server.sentBytes += bytes
      client.receivedBytes += bytes
      client.scheduler?.received(handle, request.block, bytes, this.now)
      if (request.sent < size) return room - left
      queue.shift()
      server.servedAt.set(client.id, this.now)
      this.#arrived(client, server, handle, request.block)
    }
  }

  #arrived (client: SimNode, server: SimNode, handle: number, block: number): void {
    const size = this.init.sizes[block] ?? 0
    if (server.behaviour.corrupts === true) {
      client.wastedBytes += size
      client.scheduler?.failed(handle, block)
      client.banned.add(server.id)
      this.#part(client, server)
      return
    }
    client.scheduler?.completed(handle, block)
    if (client.id === this.loaders[0]?.id) this.arrivals.push({ block, at: this.now })
    this.#at(this.now + (this.init.recordMs ?? 0), () => {
      client.blocks[block] = 1
      if (client.blocks.every(held => held === 1)) client.doneAt ??= this.now
      this.#at(this.now + (this.init.announceMs ?? 0), () => { this.#announce(client, block) })
    })
    this.plan(client)
  }

  #announce (node: SimNode, block: number): void {
    for (const other of this.loaders) {
      const handle = other.handles.get(node.id)
      if (handle === undefined || other === node) continue
      other.scheduler?.setBlock(handle, block, true)
      this.plan(other)
    }
  }
}

/** Sizes as models have them: mostly full blocks, some small. */
export function blockSizes (random: Random, count: number): number[] {
  return Array.from({ length: count }, () => random.next() < 0.8 ? 4 * MiB : 1 + Math.floor(random.next() * 4 * MiB))
}
