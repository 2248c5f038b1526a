// Draws the pictures of the README from a page: node pictures.mjs PAGE.html DIRECTORY.
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { chromium } from 'playwright-core'

const [page, directory] = process.argv.slice(2)
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] })
for (const [name, colorScheme, language] of [['page-light', 'light', 'english'], ['page-dark-korean', 'dark', 'korean']]) {
  const tab = await browser.newPage({ viewport: { width: 1120, height: 960 }, colorScheme })
  await tab.goto(pathToFileURL(page).href)
  await tab.locator(`label[for=${language}]`).first().click()
  await tab.evaluate(() => scrollTo(0, 0))
  await tab.screenshot({ path: join(directory, name + '.png') })
  await tab.close()
}
await browser.close()
