import { seededRandom, silentLogger, systemClock } from '../../src/base/index.ts'
import { createMemoryStore } from '../../src/storage/index.ts'
import { fileStore, settings, temporaryDirectory } from './store-fixtures.ts'
import { storeCompliance } from './store.ts'

storeCompliance('files', {
  create: async init => {
    const directory = await temporaryDirectory()
    const store = fileStore(directory.path, init)
    await store.start()
    return { store, stop: async () => { await store.stop(); await directory[Symbol.asyncDispose]() } }
  }
})

storeCompliance('memory', {
  create: async init => {
    const store = createMemoryStore({ clock: systemClock, random: seededRandom(1), logger: silentLogger, ...init, settings: { ...settings, ...init?.settings } })
    await store.start()
    return { store, stop: async () => { await store.stop() } }
  }
})
