import { MemoryRendezvous, createMemoryRouter } from '../../src/discovery/index.ts'
import { Swarm } from '../integration/discovery/swarm.ts'
import { routerCompliance } from './router.ts'

describe('routers', () => {
  describe('in memory', () => {
    routerCompliance(async count => {
      const rendezvous = new MemoryRendezvous()
      const routers = Array.from({ length: count }, (_, i) => ({ peerId: `peer-${i}`, router: createMemoryRouter(rendezvous, { peerId: `peer-${i}`, multiaddrs: () => [`/memory/${i}`] }) }))
      for (const { router } of routers) await router.start()
      return {
        routers,
        restart: async position => {
          await routers[position]?.router.stop()
          await routers[position]?.router.start()
        },
        stop: async () => { await Promise.all(routers.map(async ({ router }) => { await router.stop() })) }
      }
    })
  })

  describe('over the DHT', () => {
    routerCompliance(async count => {
      const swarm = new Swarm({ onDisk: true })
      await swarm.spawn(count)
      await swarm.connect()
      return {
        routers: swarm.nodes,
        restart: async position => { await swarm.restartRouter(position) },
        stop: async () => { await swarm.stop() }
      }
    })
  })
})
