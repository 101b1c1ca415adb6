import { createNetwork, createDhtRouter, loadSwarmKey } from '/work/main/src/discovery/index.ts'
import { silentLogger, systemRandom, systemClock } from '/work/main/src/base/index.ts'
import { CID } from 'multiformats/cid'
import { sha256 } from 'multiformats/hashes/sha2'
const swarmKey = systemRandom.bytes(32)
const N = Number(process.argv[2] ?? 3)
const transport = (process.argv[3] ?? 'memory') as 'memory' | 'tcp'
const nodes: any[] = []
for (let i = 0; i < N; i++) {
  const network = await createNetwork({ listen: [transport === 'memory' ? '/memory/n' + i : '/ip4/127.0.0.1/tcp/0'], transport, swarmKey, maxConnections: 300, inboundPerSecond: 1000, logger: silentLogger })
  await network.start()
  const router = createDhtRouter({ network, clock: systemClock, random: systemRandom, logger: { ...silentLogger, child: () => silentLogger, debug: (d, m) => console.log(i, m, d), warn: (d, m) => console.log(i, m, d), error: (d, m) => console.log(i, m, d) }, settings: { periodMs: 3600_000, concurrency: 4 } })
  await router.start()
  nodes.push({ network, router })
}
console.log('started')
const cids = await Promise.all(Array.from({ length: 50 }, async (_, i) => CID.createV1(0x55, await sha256.digest(new TextEncoder().encode('x' + i)))))
nodes[0].router.announce(cids)
nodes[1].router.announce([cids[0]])
let t = performance.now()
for (let i = 1; i < N; i++) await nodes[i].network.dial(nodes[0].network.getMultiaddrs()[0])
console.log('connected', performance.now() - t)
while (nodes[0].router.status().backlog > 0) await new Promise(r => setTimeout(r, 20))
console.log('announced', performance.now() - t, nodes[0].router.status())
t = performance.now()
for await (const p of nodes[N - 1].router.findProviders(cids[0], { onAsked: (id: string) => console.log('asked', id.slice(-5)) })) console.log('found', p.peerId.slice(-5), p.multiaddrs)
console.log('find', performance.now() - t)
await Promise.all(nodes.map(async n => { await n.router.stop(); await n.network.stop() }))
console.log('stopped')
setTimeout(() => console.log(process.getActiveResourcesInfo()), 1000).unref()
