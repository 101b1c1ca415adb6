import { seededRandom, silentLogger, systemClock } from '../../src/base/index.ts'
import { createMemoryStore } from '../../src/storage/index.ts'
import { fileStore, settings, temporaryDirectory } from './store-fixtures.ts'
import { importCompliance } from './store-imports.ts'
import { quotaCompliance } from './store-quota.ts'
import { storeCompliance, type StoreHarness } from './store.ts'

const files: StoreHarness = {
  create: async init => {
    const directory = await temporaryDirectory()
    const store = fileStore(directory.path, init)
    await store.start()
    return { store, stop: async () => { await store.stop(); await directory[Symbol.asyncDispose]() } }
  }
}

const memory: StoreHarness = {
  create: async init => {
    const store = createMemoryStore({ clock: systemClock, random: seededRandom(1), logger: silentLogger, ...init, settings: { ...settings, ...init?.settings } })
    await store.start()
    return { store, stop: async () => { await store.stop() } }
  }
}

for (const [name, harness] of [['files', files], ['memory', memory]] as const) {
  storeCompliance(name, harness)
  importCompliance(name, harness)
  quotaCompliance(name, harness)
}
