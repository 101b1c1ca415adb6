/**
 * A node in a process of its own, driven over the IPC channel by scripts/lib/spawn-node.ts: what kill -9 tests and
 * benches need and the daemon's HTTP API would only blur.
 */
import { flushCompileCache } from 'node:module'
import { createNode } from '../../src/node/index.ts'
import { asError, seededRandom, systemClock } from '../../src/base/index.ts'
import { holdHeap, tuneForBulk } from '../../src/base/runtime.ts'
import type { NodeInit } from '../../src/node/init.ts'
import type { ShoalNode } from '../../src/node/types.ts'
import { createLinkLimiter } from '../../src/discovery/index.ts'
import { fastClock } from './fast-clock.ts'

export interface ProcessInit extends Pick<NodeInit, 'dataDirectory' | 'settings' | 'transport'> {
  swarmKeyHex: string
  /** Caps this process's links, bytes per second each way. */
  linkBytesPerSecond?: number
  seed?: number
  /** So many times as fast passes the time of this node. */
  clockTimes?: number
}

export type Command =
  | { id: number, call: 'add', path: string, inPlace?: boolean, replicas?: number }
  | { id: number, call: 'load', cid: string, include?: string[] }
  | { id: number, call: 'remove', cid: string }
  | { id: number, call: 'verify' }
  | { id: number, call: 'shards', cid: string }
  | { id: number, call: 'replicated', cid: string }
  | { id: number, call: 'drain', deadlineMs?: number }
  | { id: number, call: 'pin', cid: string, replicas?: number }
  | { id: number, call: 'unpin', cid: string }
  | { id: number, call: 'status' }
  | { id: number, call: 'peers' }
  | { id: number, call: 'connect', address: string }
  | { id: number, call: 'stop' }

export type Message =
  | { event: 'ready', peerId: string, multiaddrs: string[] }
  | { event: 'failed', error: { name: string, message: string } }
  | { event: 'progress', bytesDone: number, bytesTotal: number }
  | { id: number, result: unknown }
  | { id: number, error: { name: string, message: string } }

function tell (message: Message): void {
  if (process.connected) process.send?.(message)
}

function plain (error: unknown): { name: string, message: string } {
  const { name, message } = asError(error)
  return { name, message }
}

async function run (node: ShoalNode, command: Command): Promise<unknown> {
  switch (command.call) {
    case 'add': return await node.add(command.path, { inPlace: command.inPlace ?? false, ...(command.replicas === undefined ? {} : { replicas: command.replicas }) })
    case 'load': return await node.load(command.cid, {
      ...(command.include === undefined ? {} : { include: command.include }),
      onProgress: ({ bytesDone, bytesTotal }) => { tell({ event: 'progress', bytesDone, bytesTotal }) }
    })
    case 'remove': return await node.remove(command.cid)
    case 'shards': return node.shards(command.cid)
    case 'replicated': await node.replicated(command.cid); return undefined
    case 'drain': return await node.drain(command.deadlineMs === undefined ? {} : { deadlineMs: command.deadlineMs })
    case 'pin': await node.pin(command.cid, command.replicas === undefined ? {} : { replicas: command.replicas }); return undefined
    case 'unpin': await node.unpin(command.cid); return undefined
    case 'verify': return await node.verify()
    case 'status': return await node.status()
    case 'peers': return node.peers()
    case 'connect': return await node.connect(command.address)
    case 'stop': await node.stop(); return undefined
  }
}

const init = JSON.parse(process.argv[2] ?? '{}') as ProcessInit
tuneForBulk()
try {
  const { swarmKeyHex, linkBytesPerSecond, seed, clockTimes, ...rest } = init
  const node = await createNode({
    ...rest,
    swarmKey: Buffer.from(swarmKeyHex, 'hex'),
    ...(seed === undefined ? {} : { random: seededRandom(seed) }),
    ...(clockTimes === undefined ? {} : { clock: fastClock(clockTimes) }),
    ...(linkBytesPerSecond === undefined ? {} : { linkLimiter: createLinkLimiter({ sendBytesPerSecond: linkBytesPerSecond, receiveBytesPerSecond: linkBytesPerSecond, clock: systemClock }) })
  })
  holdHeap()
  process.on('message', (command: Command) => {
    run(node, command).then(result => { tell({ id: command.id, result }) }, error => { tell({ id: command.id, error: plain(error) }) }).finally(() => {
      // libp2p's address manager leaves a timer of a second behind when its listeners close; nobody waits for that.
      if (command.call === 'stop') process.exit()
    })
  })
  process.on('disconnect', () => { void node.stop() })
  if (!process.connected) void node.stop() // whoever started it ended meanwhile
  tell({ event: 'ready', peerId: node.peerId, multiaddrs: node.multiaddrs() })
  flushCompileCache() // it may be killed before it ends
} catch (error) {
  tell({ event: 'failed', error: plain(error) })
  process.exitCode = 1
  process.disconnect?.()
}
