import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { silentLogger, systemClock, systemRandom, type Clock } from '../../../src/base/index.ts'
import { createDhtRouter, createNetwork, type ContentRouter, type Network, type NetworkInit } from '../../../src/discovery/index.ts'

export interface SwarmInit {
  transport?: 'memory' | 'tcp'
  /** Give each node a directory. Default false. */
  onDisk?: boolean
  periodMs?: number
  clock?: Clock
}

export interface SwarmNode {
  network: Network
  router: ContentRouter
  peerId: string
}

let swarms = 0

/** Hosts and routers, without the rest of a node. */
export class Swarm {
  readonly nodes: SwarmNode[] = []
  readonly swarmKey = systemRandom.bytes(32)
  readonly #init: SwarmInit
  readonly #id = swarms++
  #root: string | undefined

  constructor (init: SwarmInit = {}) { this.#init = init }

  async spawn (count: number, each: Partial<NetworkInit> = {}): Promise<SwarmNode[]> {
    const made: SwarmNode[] = []
    for (let i = 0; i < count; i++) made.push(await this.#spawnOne(each))
    return made
  }

  /** Joins all to the first. Where many meet in one process a dial may run out of its ten seconds: it is tried again, as a node would. */
  async connect (nodes: readonly SwarmNode[] = this.nodes): Promise<void> {
    const [first, ...rest] = nodes
    const address = first?.network.getMultiaddrs()[0] ?? assert.fail('no address')
    for (const { network } of rest) {
      await network.dial(address).catch(async error => {
        if (!(error instanceof Error) || error.name !== 'TimeoutError') throw error
        await network.dial(address)
      })
    }
  }

  node (position: number): SwarmNode { return this.nodes[position] ?? assert.fail(`no node ${position}`) }

  directory (position: number): string { return join(this.#root ?? assert.fail('not on disk'), `node-${position}`) }

  async restartRouter (position: number): Promise<void> {
    const node = this.node(position)
    await node.router.stop()
    node.router = this.#routerFor(node.network, position)
    await node.router.start()
  }

  /** Takes a node away, as its peers see it. */
  async kill (position: number): Promise<void> {
    const node = this.node(position)
    await node.router.stop()
    await node.network.stop()
  }

  async stop (): Promise<void> {
    await Promise.all(this.nodes.splice(0).map(async ({ network, router }) => {
      await router.stop()
      await network.stop()
    }))
    if (this.#root !== undefined) await rm(this.#root, { recursive: true, force: true })
  }

  async #spawnOne (each: Partial<NetworkInit>): Promise<SwarmNode> {
    const position = this.nodes.length
    const transport = this.#init.transport ?? 'memory'
    if (this.#init.onDisk === true) this.#root ??= await mkdtemp(join(tmpdir(), 'shoal-swarm-'))
    const network = await createNetwork({
      ...(this.#root === undefined ? {} : { dataDirectory: this.directory(position) }),
      transport,
      listen: [transport === 'memory' ? `/memory/swarm-${this.#id}-${position}` : '/ip4/127.0.0.1/tcp/0'],
      swarmKey: this.swarmKey,
      maxConnections: 300,
      inboundPerSecond: 1_000,
      logger: silentLogger,
      ...each
    })
    await network.start()
    const node = { network, router: this.#routerFor(network, position), peerId: network.peerId.toString() }
    await node.router.start()
    this.nodes.push(node)
    return node
  }

  #routerFor (network: Network, position: number): ContentRouter {
    return createDhtRouter({
      network,
      clock: this.#init.clock ?? systemClock,
      random: systemRandom,
      logger: silentLogger,
      settings: { periodMs: this.#init.periodMs ?? 22 * 3_600_000, concurrency: 4 },
      ...(this.#root === undefined ? {} : { queueFile: join(this.directory(position), 'announce.sqlite') })
    })
  }
}
