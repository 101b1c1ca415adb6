import { peerIdFromString } from '@libp2p/peer-id'
import { MiB, seededRandom, silentLogger, systemClock } from '../../src/base/index.ts'
import { createLinkLimiter, createNetwork, type Network } from '../../src/discovery/index.ts'
import { openStream } from '../../src/transfer/dial.ts'
import { framesOver, type OpenFrames } from '../../src/transfer/frame-stream.ts'
import { BlockChecks } from '../../src/transfer/block-checks.ts'
import { Lanes } from '../../src/transfer/lanes/lanes.ts'
import { BLOCK_PROTOCOL } from '../../src/transfer/messages.ts'
import { transportCompliance, type TransportEnds } from './transport.ts'

let made = 0

async function networks (transport: 'memory' | 'tcp'): Promise<{ client: Network, server: Network }> {
  const start = async (): Promise<Network> => {
    const network = await createNetwork({
      transport,
      listen: [transport === 'memory' ? `/memory/transport-${++made}` : '/ip4/127.0.0.1/tcp/0'],
      openSwarm: true,
      maxConnections: 300,
      inboundPerSecond: 1_000,
      logger: silentLogger
    })
    await network.start()
    return network
  }
  const [client, server] = [await start(), await start()]
  await client.dial(server.getMultiaddrs())
  return { client, server }
}

async function streams (transport: 'memory' | 'tcp'): Promise<TransportEnds> {
  const { client, server } = await networks(transport)
  let accept: ((open: OpenFrames) => void) | undefined
  await server.handle(BLOCK_PROTOCOL, stream => { accept?.(framesOver(stream)) }, { maxInboundStreams: 64 })
  return {
    open: async accepts => {
      accept = accepts
      return framesOver(await openStream(client, server.peerId.toString(), BLOCK_PROTOCOL, { clock: systemClock, timeoutMs: 5_000, signal: new AbortController().signal }))
    },
    stop: async () => { await Promise.all([client.stop(), server.stop()]) }
  }
}

/** `bytesPerSecond`: each end's own cap, both ways. */
async function lanes ({ bytesPerSecond, threads }: { bytesPerSecond?: number, threads?: number } = {}): Promise<TransportEnds> {
  const { client, server } = await networks('tcp')
  let accept: ((open: OpenFrames) => void) | undefined
  const [asking, offering] = [client, server].map(network => new Lanes({
    network,
    clock: systemClock,
    random: seededRandom(++made),
    logger: silentLogger,
    ...(bytesPerSecond === undefined ? {} : { linkLimiter: createLinkLimiter({ sendBytesPerSecond: bytesPerSecond, receiveBytesPerSecond: bytesPerSecond, clock: systemClock }) })
  }, {
    enabled: true, port: 0, threads, listen: ['/ip4/127.0.0.1/tcp/0']
  }, {
    accept: (_peerId, open) => { accept?.(open); return accept !== undefined },
    isBanned: () => false
  }))
  await asking?.start()
  await offering?.start()
  return {
    open: async accepts => {
      accept = accepts
      const lane = await asking?.open(peerIdFromString(server.peerId.toString()).toString(), new AbortController().signal).lane
      if (lane === undefined) throw new Error('no lane')
      return lane.open
    },
    stop: async () => {
      await asking?.stop()
      await offering?.stop()
      await Promise.all([client.stop(), server.stop()])
    }
  }
}

transportCompliance('libp2p stream, memory', { create: async () => await streams('memory') })
transportCompliance('libp2p stream, TCP', { create: async () => await streams('tcp') })
transportCompliance('lane', { create: async () => await lanes(), attackMs: 300 })
const checks = new BlockChecks(1, silentLogger)
transportCompliance('lane, capped, blocks checked by a thread', { create: async () => await lanes({ bytesPerSecond: 200 * MiB }), attackMs: 100, checks })
// They lend no memory: what they receive lies in a ring of their own.
transportCompliance('lane, kept by threads', { create: async () => await lanes({ threads: 2 }) })
transportCompliance('lane, kept by a thread, capped', { create: async () => await lanes({ threads: 1, bytesPerSecond: 200 * MiB }) })
after(async () => { await checks.stop() })
