// `npm run build` writes the page that the service ships: src/timbrel/serving/page.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import license from "rollup-plugin-license";
import { defineConfig, type Plugin } from "vite";

const page = "../src/timbrel/serving/page";

export default defineConfig({
  base: "/",
  build: {
    outDir: page,
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0, // the page's policy lets no data: address in
    modulePreload: { polyfill: false },
    rollupOptions: {
      plugins: [
        sources(),
        license({
          thirdParty: { includeSelf: false, output: { file: `${page}/licences.txt` } },
        }),
      ],
    },
  },
  // `npm run dev` beside a running `timbrel serve`.
  server: {
    proxy: Object.fromEntries(
      ["/search", "/synthesize", "/instrument", "/locate", "/info", "/patches", "/docs"].map((path) => [
        path,
        "http://127.0.0.1:3000",
      ]),
    ),
  },
});

/** The checksum of what the page is built from, for a test to tell that the built files are of these sources. */
function sources(): Plugin {
  return {
    name: "sources",
    generateBundle() {
      const inside = readdirSync("src").map((name) => `src/${name}`);
      const files = ["index.html", "package-lock.json", "vite.config.ts", ...inside].sort();
      const sum = createHash("sha256");
      for (const file of files) sum.update(`${file}\0`).update(readFileSync(file)).update("\0");
      this.emitFile({ type: "asset", fileName: "sources.sha256", source: `${sum.digest("hex")}\n` });
    },
  };
}
