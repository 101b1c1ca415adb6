import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemRandom, type Clock } from '../../src/base/index.ts'
import { createNode } from '../../src/node/index.ts'
import type { NodeInit, PartialSettings } from '../../src/node/init.ts'
import type { ShoalNode } from '../../src/node/types.ts'

export interface ClusterInit {
  /** Default `memory`: libp2p's in-process transport and memory stores. `tcp` uses loopback and directories. */
  transport?: 'memory' | 'tcp'
  settings?: PartialSettings
  clock?: Clock
}

let clusters = 0

/**
 * Many real nodes in one process, in one private swarm:
 *
 *     await using cluster = new Cluster({ transport: 'tcp' })
 *     const [a, b] = await cluster.spawn(2)
 *     await cluster.connect()
 */
export class Cluster implements AsyncDisposable {
  readonly nodes: ShoalNode[] = []
  readonly swarmKey = systemRandom.bytes(32)
  readonly #init: ClusterInit
  readonly #id = clusters++
  readonly #directories = new Map<ShoalNode, string>()
  #root: string | undefined
  #made = 0

  constructor (init: ClusterInit = {}) { this.#init = init }

  /** Starts `count` nodes, not yet connected. `each` may differ from node to node. */
  async spawn (count: number, each: (position: number) => NodeInit = () => ({})): Promise<ShoalNode[]> {
    const made: ShoalNode[] = []
    for (let i = 0; i < count; i++) made.push(await this.#spawnOne(each(i)))
    return made
  }

  /** Joins every node to the first. */
  async connect (nodes: ShoalNode[] = this.nodes): Promise<void> {
    const [first, ...rest] = nodes
    const address = first?.multiaddrs()[0]
    if (address === undefined) throw new Error('no node to connect to')
    for (const node of rest) await node.connect(address)
  }

  directory (node: ShoalNode): string {
    const directory = this.#directories.get(node)
    if (directory === undefined) throw new Error('this node lives in memory')
    return directory
  }

  /** Stops a node for good, as far as its peers can see. */
  async kill (node: ShoalNode): Promise<void> {
    const at = this.nodes.indexOf(node)
    if (at >= 0) this.nodes.splice(at, 1)
    await node.stop()
  }

  async teardown (): Promise<void> {
    await Promise.all(this.nodes.splice(0).map(async node => { await node.stop() }))
    if (this.#root !== undefined) await rm(this.#root, { recursive: true, force: true })
  }

  async [Symbol.asyncDispose] (): Promise<void> { await this.teardown() }

  async #spawnOne (init: NodeInit): Promise<ShoalNode> {
    const transport = this.#init.transport ?? 'memory'
    const position = this.#made++
    let dataDirectory = init.dataDirectory
    if (transport === 'tcp' && dataDirectory === undefined) {
      this.#root ??= await mkdtemp(join(tmpdir(), 'shoal-cluster-'))
      dataDirectory = join(this.#root, `node-${position}`)
    }
    const node = await createNode({
      transport,
      swarmKey: this.swarmKey,
      ...(this.#init.clock === undefined ? {} : { clock: this.#init.clock }),
      ...init,
      ...(dataDirectory === undefined ? {} : { dataDirectory }),
      settings: {
        listen: [transport === 'memory' ? `/memory/cluster-${this.#id}-node-${position}` : '/ip4/127.0.0.1/tcp/0'],
        ...this.#init.settings,
        ...init.settings,
        // Many nodes on one address: not what a production node should allow (`network.inboundPerSecond`, 5 by default).
        network: { inboundPerSecond: 1000, ...this.#init.settings?.network, ...init.settings?.network }
      }
    })
    this.nodes.push(node)
    if (dataDirectory !== undefined) this.#directories.set(node, dataDirectory)
    return node
  }
}
